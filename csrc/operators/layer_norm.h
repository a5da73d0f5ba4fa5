// Layer or root-mean-square normalization of a sum: checks the call, splits the rows over threads.
#pragma once

#include "../kernels/layer_norm_args.h"

namespace sparsekit {

/// output = layer_norm(input + added) of every row, as torch's layer_norm over the last dimension, or its rms_norm
/// where rows are not `centered`; sums = input + added where that is wanted. A row has the same bits for every number
/// of threads. Throws std::invalid_argument for sizes below 0.
void add_layer_norm(const LayerNormRows& rows);

}  // namespace sparsekit
