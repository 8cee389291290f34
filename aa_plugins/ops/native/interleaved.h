// Channels last. The channels of a pixel's group lie side by side, and share its taps.

#pragma once

#include "taps.h"

// The windows of one row of outputs: a pointer for each tap, null where the border is zero.
template <typename T>
struct Window {
    const Problem& p;
    const int64_t area = p.kernel * p.kernel;
    std::vector<int64_t> pixel;  // of each tap, -1 where the border is zero

    explicit Window(const Problem& problem) : p(problem), pixel(p.kernel * p.kernel) {}

    void place(int64_t n, int64_t h, int64_t w) {
        for (int64_t t = 0; t < area; ++t) {
            const int32_t row = p.rows[h * p.stride + t / p.kernel];
            const int32_t column = p.columns[w * p.stride + t % p.kernel];
            const bool outside = row < 0 || column < 0;
            pixel[t] = outside ? -1 : ((n * p.height + row) * p.width + column) * p.channels;
        }
    }
};

// Calls `visit(run of lanes, first channel)` for the channels [begin, end) in the longest runs.
template <int L, typename Visit>
void each_run(int64_t begin, int64_t end, Visit visit) {
    for (; begin + L <= end; begin += L) visit(std::integral_constant<int, L>{}, begin);
    if constexpr (L > 1) each_run<(L > 4 ? L / 2 : 1)>(begin, end, visit);
}

template <typename T, typename A>
void interleaved_forward(const Problem& p) {
    const int64_t per_group = p.channels / p.groups;
    const T* x = static_cast<const T*>(p.x);
    #pragma omp parallel num_threads(p.threads)
    {
        Taps<A> maker(p);
        Window<T> window(p);
        std::vector<A> taps(p.groups * maker.size), tap(maker.area);
        #pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < p.batch * p.out_height; ++unit) {
            const int64_t n = unit / p.out_height, h = unit % p.out_height;
            for (int64_t g = 0; g < p.groups; ++g) {
                A* rows = taps.data() + g * maker.size;
                maker.compute(n, g, h, rows, rows);
            }
            for (int64_t w = 0; w < p.out_width; ++w) {
                window.place(n, h, w);
                T* y = static_cast<T*>(p.y) + (unit * p.out_width + w) * p.channels;
                for (int64_t g = 0; g < p.groups; ++g) {
                    for (int64_t t = 0; t < maker.area; ++t)
                        tap[t] = taps[g * maker.size + t * maker.pitch + w];
                    each_run<kLanes>(g * per_group, (g + 1) * per_group, [&](auto lanes, int64_t c) {
                        using V = Lanes<A, decltype(lanes)::value>;
                        V total = V::of(0);
                        for (int64_t t = 0; t < maker.area; ++t)
                            if (window.pixel[t] >= 0)
                                total.add(V::of(tap[t]), V::load(x + window.pixel[t] + c));
                        total.store(y + c);
                    });
                }
            }
        }
    }
}

template <typename T, typename A>
void interleaved_backward(const Problem& p) {
    const int64_t per_group = p.channels / p.groups;
    const T* x = static_cast<const T*>(p.x);
    A* grad_x = static_cast<A*>(p.grad_x);
    #pragma omp parallel num_threads(p.threads)
    {
        Taps<A> maker(p);
        Window<T> window(p);
        std::vector<A> taps(maker.size), open(maker.size), grad_taps(maker.size);
        #pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < p.batch * p.groups; ++unit) {
            const int64_t n = unit / p.groups, g = unit % p.groups;
            double grad_gate = 0;
            for (int64_t h = 0; h < p.out_height; ++h) {
                maker.compute(n, g, h, open.data(), taps.data());
                std::fill(grad_taps.begin(), grad_taps.end(), A(0));
                for (int64_t w = 0; w < p.out_width; ++w) {
                    window.place(n, h, w);
                    const T* grad = static_cast<const T*>(p.grad_y) +
                                    ((n * p.out_height + h) * p.out_width + w) * p.channels;
                    each_run<kLanes>(g * per_group, (g + 1) * per_group, [&](auto lanes, int64_t c) {
                        using V = Lanes<A, decltype(lanes)::value>;
                        const V upstream = V::load(grad + c);
                        for (int64_t t = 0; t < maker.area; ++t) {
                            if (window.pixel[t] < 0) continue;
                            if (p.grad_logits) {
                                V product = V::of(0);
                                product.add(upstream, V::load(x + window.pixel[t] + c));
                                grad_taps[t * maker.pitch + w] += product.sum();
                            }
                            if (p.grad_x) {
                                A* target = grad_x + window.pixel[t] + c;
                                V total = V::load(target);
                                total.add(upstream, V::of(taps[t * maker.pitch + w]));
                                total.store(target);
                            }
                        }
                    });
                }
                if (p.grad_logits)
                    grad_gate += maker.backward(n, g, h, open.data(), grad_taps.data());
            }
            if (p.grad_gate) static_cast<A*>(p.grad_gate)[unit] = A(grad_gate);
        }
    }
}
