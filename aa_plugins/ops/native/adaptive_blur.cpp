// The spatially varying filter on CPUs: softmax, gate, weighted sum and subsampling in one pass.
//
// A plain C interface, so that one compilation serves every version of Python and PyTorch. Neither
// a padded copy nor an unfolded tensor exists: tables say where a padded row or column comes from.

#include "planar.h"
#include "interleaved.h"

namespace {

template <typename T, typename A>
void run(const Problem& p, bool forward) {
    if (p.channels_last) forward ? interleaved_forward<T, A>(p) : interleaved_backward<T, A>(p);
    else forward ? planar_forward<T, A>(p) : planar_backward<T, A>(p);
}

void dispatch(const Problem& p, bool forward) {
    switch (p.dtype) {
        case 0: return run<float, float>(p, forward);
        case 1: return run<double, double>(p, forward);
        case 2: return run<Half, float>(p, forward);
        case 3: return run<BFloat16, float>(p, forward);
    }
}

}  // namespace

extern "C" void aa_forward(const Problem* p) { dispatch(*p, true); }
extern "C" void aa_backward(const Problem* p) { dispatch(*p, false); }
