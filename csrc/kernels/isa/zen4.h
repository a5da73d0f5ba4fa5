// AVX-512 with VBMI and VNNI on AMD's processors, which pick bytes from two registers every cycle: for any number of
// tokens that is faster than to interleave them.
#pragma once

#include "x86/picks_vbmi.h"
