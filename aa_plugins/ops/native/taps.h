// What one call computes, and the taps of one row of outputs: softmax, mixture and gate, each with
// its gradient. Rows of taps lie side by side, padded to `pitch` so that no loop has a remainder.

#pragma once

#include <algorithm>

#include "numeric.h"

struct Problem {
    int64_t batch, channels, height, width, groups, members, out_height, out_width, kernel, stride;
    int64_t logit_strides[5], grad_logit_strides[5];  // of (N, G, members, H', W')
    int64_t dtype, channels_last, softmax, threads;
    const void *x, *logits, *gate, *bank;  // gate (G) and bank (members, k²) may be null
    const int32_t *rows, *columns;         // source of each padded row and column; -1 is a zero
    void* y;
    const void* grad_y;                    // laid out as y
    // In the accumulator's type; null where not wanted. grad_x is laid out as x, and zeroed before.
    void *grad_x, *grad_logits, *grad_gate;
};

constexpr int kLanes = 16;
constexpr int64_t kTileBytes = 32 * 1024;

template <typename A>
struct Taps {
    using V = Lanes<A, kLanes>;
    const Problem& p;
    const int64_t area, pitch, size, tile;
    Buffer<A> weight, scratch;

    explicit Taps(const Problem& problem)
        : p(problem),
          area(p.kernel * p.kernel),
          pitch((p.out_width + kLanes - 1) / kLanes * kLanes),
          size(area * pitch),
          tile(tile_rows(problem)),
          weight(p.members * pitch),
          scratch(std::max(p.members, area) * pitch) {}

    // Rows of outputs whose taps fit the first-level cache.
    static int64_t tile_rows(const Problem& p) {
        const int64_t row = p.kernel * p.kernel * p.out_width * int64_t(sizeof(A));
        return std::min(p.out_height, std::max<int64_t>(1, kTileBytes / row));
    }

    // Taps of row h and group g of image n, (k², pitch): `open` before the gate, `taps` after it.
    void compute(int64_t n, int64_t g, int64_t h, A* open, A* taps) {
        read(n, g, h);
        if (p.softmax) softmax();
        if (p.bank) mix(open);
        else std::copy_n(weight.data(), size, open);
        gate(g, open, taps);
    }

    // The gradient of `taps` passed on to the logits; returns the gate's.
    // `weight` must still hold the row's, so this follows `compute` of the same row.
    double backward(int64_t n, int64_t g, int64_t h, const A* open, const A* grad_taps) {
        A* grad = scratch.data();
        const A share = p.gate ? static_cast<const A*>(p.gate)[g] : A(1);
        const A* bank = static_cast<const A*>(p.bank);
        for (int64_t m = 0; m < p.members; ++m) {
            A* row = grad + m * pitch;
            for (int64_t w = 0; w < p.out_width; ++w) row[w] = bank ? 0 : share * grad_taps[m * pitch + w];
            for (int64_t t = 0; bank && t < area; ++t) {
                const A value = share * bank[m * area + t];
                for (int64_t w = 0; w < p.out_width; ++w) row[w] += value * grad_taps[t * pitch + w];
            }
        }
        if (p.softmax) softmax_backward(grad);
        const int64_t* s = p.grad_logit_strides;
        A* target = static_cast<A*>(p.grad_logits) + n * s[0] + g * s[1] + h * s[3];
        for (int64_t m = 0; m < p.members; ++m)
            for (int64_t w = 0; w < p.out_width; ++w) target[m * s[2] + w * s[4]] = grad[m * pitch + w];
        return p.gate ? gate_backward(open, grad_taps) : 0;
    }

  private:
    void read(int64_t n, int64_t g, int64_t h) {
        const int64_t* s = p.logit_strides;
        const A* logits = static_cast<const A*>(p.logits) + n * s[0] + g * s[1] + h * s[3];
        for (int64_t m = 0; m < p.members; ++m) {
            const A* source = logits + m * s[2];
            A* target = weight.data() + m * pitch;
            if (s[4] == 1) std::copy_n(source, p.out_width, target);
            else for (int64_t w = 0; w < p.out_width; ++w) target[w] = source[w * s[4]];
        }
    }

    void softmax() {
        for (int64_t w = 0; w < pitch; w += kLanes) {
            A* first = weight.data() + w;
            V largest = V::load(first), total = V::of(0);
            for (int64_t m = 1; m < p.members; ++m)
                largest = V::larger(largest, V::load(first + m * pitch));
            for (int64_t m = 0; m < p.members; ++m) {
                const V value = exponential(V{V::load(first + m * pitch).v - largest.v});
                value.store(first + m * pitch);
                total.v += value.v;
            }
            total.v = 1 / total.v;
            for (int64_t m = 0; m < p.members; ++m)
                V{V::load(first + m * pitch).v * total.v}.store(first + m * pitch);
        }
    }

    void softmax_backward(A* grad) const {
        for (int64_t w = 0; w < pitch; w += kLanes) {
            const A* first = weight.data() + w;
            V mean = V::of(0);
            for (int64_t m = 0; m < p.members; ++m)
                mean.add(V::load(first + m * pitch), V::load(grad + m * pitch + w));
            for (int64_t m = 0; m < p.members; ++m) {
                V row = V::load(grad + m * pitch + w);
                row.v = V::load(first + m * pitch).v * (row.v - mean.v);
                row.store(grad + m * pitch + w);
            }
        }
    }

    void mix(A* open) const {
        const A* bank = static_cast<const A*>(p.bank);
        for (int64_t t = 0; t < area; ++t)
            for (int64_t w = 0; w < pitch; w += kLanes) {
                V total = V::of(0);
                for (int64_t m = 0; m < p.members; ++m)
                    total.add(V::of(bank[m * area + t]), V::load(weight.data() + m * pitch + w));
                total.store(open + t * pitch + w);
            }
    }

    void gate(int64_t g, const A* open, A* taps) const {
        if (!p.gate) {
            if (taps != open) std::copy_n(open, size, taps);
            return;
        }
        const A share = static_cast<const A*>(p.gate)[g];
        for (int64_t i = 0; i < size; ++i) taps[i] = share * open[i];
        A* centre = taps + area / 2 * pitch;
        for (int64_t w = 0; w < pitch; ++w) centre[w] += 1 - share;
    }

    // A sum over every tap of every position, most of which cancels: in double precision.
    double gate_backward(const A* open, const A* grad_taps) const {
        double total = 0;
        for (int64_t t = 0; t < area; ++t)
            for (int64_t w = 0; w < p.out_width; ++w)
                total += grad_taps[t * pitch + w] * (open[t * pitch + w] - A(t == area / 2));
        return total;
    }
};
