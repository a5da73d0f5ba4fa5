#include "instruction_set.h"

#include <atomic>
#include <cstdlib>

#include "../base/cpu.h"

extern "C" {
#define SPARSEKIT_DECLARE_TABLE(name, runs_here) extern const sparsekit::KernelTable sparsekit_kernels_##name;
SPARSEKIT_FOR_EACH_ISA(SPARSEKIT_DECLARE_TABLE)
}

namespace sparsekit {
namespace {

struct InstructionSet {
  std::string name;
  bool runs_here;
  const KernelTable* all;
  KernelTable used;
};

const std::vector<InstructionSet>& instruction_sets() {
#define SPARSEKIT_LIST_TABLE(name, runs_here)                      \
  {#name, static_cast<bool>(runs_here), &sparsekit_kernels_##name, \
   kernels_for(sparsekit_kernels_##name, this_vendor())},
  static const std::vector<InstructionSet> list = {SPARSEKIT_FOR_EACH_ISA(SPARSEKIT_LIST_TABLE)};
  return list;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const InstructionSet& find(const std::string& name) {
  for (const auto& isa : instruction_sets()) {
    if (isa.name == name && isa.runs_here) return isa;
  }
  throw KernelUnavailable("instruction set '" + name + "' cannot run here; this machine has " +
                          joined(available_isas()) + ". Choose one of them in SPARSEKIT_ISA, or unset it");
}

const InstructionSet& preferred() {
  const char* forced = std::getenv("SPARSEKIT_ISA");
  return find(forced != nullptr && *forced != '\0' ? forced : available_isas().back());
}

std::atomic<const InstructionSet*>& chosen() {
  static std::atomic<const InstructionSet*> isa{&preferred()};
  return isa;
}

constexpr char kNative[] = "native";

struct Target {
  const char* name;
  LayoutThresholds layouts;
};
constexpr Target kTargets[] = {{"avx2", kAvx2Layouts}, {"avx512", kAvx512Layouts}, {"neon", kNeonLayouts}};

LayoutThresholds thresholds_of(const std::string& name) {
  if (name == kNative) return current_kernels().layouts;
  for (const Target& target : kTargets) {
    if (target.name == name) return target.layouts;
  }
  throw std::invalid_argument("target must be one of " + joined(packing_targets()) + ", got '" + name + "'");
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const auto& isa : instruction_sets()) {
    if (isa.runs_here) names.push_back(isa.name);
  }
  return names;
}

const std::string& current_isa() { return chosen().load()->name; }

void use_isa(const std::string& name) {
  const InstructionSet& isa = find(name);
  chosen().store(&isa);
}

Vendor this_vendor() { return is_amd() ? Vendor::amd : Vendor::others; }

KernelTable kernels_for(const KernelTable& all, Vendor vendor) {
  KernelTable used = all;
  used.vendor = vendor;
  used.size = 0;
  for (int i = 0; i < all.size; ++i) {
    if (all.kernels[i].min_tokens.of(vendor) != kNever) used.add(all.kernels[i]);
  }
  return used;
}

const KernelTable& all_kernels() { return *chosen().load()->all; }

const KernelTable& current_kernels() { return chosen().load()->used; }

std::vector<std::string> packing_targets() {
  std::vector<std::string> names = {kNative};
  for (const Target& target : kTargets) names.emplace_back(target.name);
  return names;
}

std::vector<Family> candidate_families(const CsrView& csr, DType dtype, const std::string& target) {
  const LayoutThresholds thresholds = thresholds_of(target);
  if (dtype == DType::int4) return {Family::dense};
  const double least = dtype == DType::int8 ? thresholds.min_csr_sparsity_s8 : thresholds.min_csr_sparsity;
  if (least <= 0) return {Family::csr};
  if (least > 1) return {Family::sell};
  const auto size = static_cast<double>(csr.out_features) * static_cast<double>(csr.in_features);
  const double sparsity = size > 0 ? 1 - static_cast<double>(csr.values_size) / size : 0;
  if (sparsity >= least) return {Family::csr, Family::sell};
  return {Family::sell, Family::csr};
}

}  // namespace sparsekit
