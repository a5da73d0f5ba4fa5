// ISA dispatch: the best instruction set of this machine, or the one that SPARSEKIT_ISA names.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "../formats/packed.h"
#include "../kernels/table.h"

namespace sparsekit {

/// A requested instruction set or device is not available.
struct KernelUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Names of the instruction sets that this machine can run, slowest first.
std::vector<std::string> available_isas();

/// Name of the instruction set in use. The first call chooses it.
/// Throws KernelUnavailable when SPARSEKIT_ISA names one that is unknown or cannot run here.
const std::string& current_isa();

/// Uses `name` from now on, in every thread. Throws KernelUnavailable as above and leaves the choice as it was.
void use_isa(const std::string& name);

/// Vendor of this machine's processor.
Vendor this_vendor();

/// The kernels of a table that a vendor's processors use.
KernelTable kernels_for(const KernelTable& all, Vendor vendor);

/// Kernels of the instruction set in use, for every vendor.
const KernelTable& all_kernels();

/// Kernels of the instruction set in use that this machine's processor uses.
const KernelTable& current_kernels();

/// Targets for packing: "native", the instruction set in use, and kinds of instruction sets.
std::vector<std::string> packing_targets();

/// How this weight, with values of this type, may run fastest on a target: the families to measure, the preferred one
/// first. One where that is best at any number of tokens. Throws std::invalid_argument for an unknown target.
std::vector<Family> candidate_families(const CsrView& csr, DType dtype, const std::string& target);

}  // namespace sparsekit
