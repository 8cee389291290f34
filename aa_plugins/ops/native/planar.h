// Channels first. A tile of rows of one channel is widened and split into `stride` phases, border
// included, in a buffer that stays in the first-level cache: whatever the stride, the sums then
// run over contiguous memory.

#pragma once

#include "taps.h"

template <typename A>
struct PhaseRows {
    const Problem& p;
    const int64_t before, padded_width, phase, row;
    std::vector<int64_t> offset;  // of each tap's view, from the window's first row

    PhaseRows(const Problem& problem, int64_t pitch)
        : p(problem),
          before((p.kernel - 1) / 2),
          padded_width(p.width + p.kernel - 1),
          phase((pitch + (padded_width + p.stride - 1) / p.stride - p.out_width + kLanes) / kLanes * kLanes),
          row(phase * p.stride) {
        for (int64_t t = 0; t < p.kernel * p.kernel; ++t)
            offset.push_back(t / p.kernel * row + place(t % p.kernel));
    }

    int64_t place(int64_t column) const { return column % p.stride * phase + column / p.stride; }

    template <typename T>
    void pack(const T* source, A* packed) const {
        A* start[2] = {packed + place(before), packed + place(before + 1)};
        if (p.stride == 2) {
            const int64_t pairs = p.width / 2;
            for (int64_t i = 0; i < pairs; ++i) {
                start[0][i] = widen(source[2 * i]);
                start[1][i] = widen(source[2 * i + 1]);
            }
            if (p.width % 2) start[0][pairs] = widen(source[p.width - 1]);
        } else if (p.stride == 1) {
            for (int64_t i = 0; i < p.width; ++i) start[0][i] = widen(source[i]);
        } else {
            for (int64_t i = 0; i < p.width; ++i) packed[place(before + i)] = widen(source[i]);
        }
        each_border([&](int64_t column, int32_t from) {
            packed[place(column)] = from < 0 ? A(0) : widen(source[from]);
        });
    }

    void add_unpacked(A* packed, A* target) const {
        each_border([&](int64_t column, int32_t from) {
            if (from >= 0) target[from] += packed[place(column)];
        });
        const A* start[2] = {packed + place(before), packed + place(before + 1)};
        if (p.stride == 2) {
            const int64_t pairs = p.width / 2;
            for (int64_t i = 0; i < pairs; ++i) {
                target[2 * i] += start[0][i];
                target[2 * i + 1] += start[1][i];
            }
            if (p.width % 2) target[p.width - 1] += start[0][pairs];
        } else if (p.stride == 1) {
            for (int64_t i = 0; i < p.width; ++i) target[i] += start[0][i];
        } else {
            for (int64_t i = 0; i < p.width; ++i) target[i] += packed[place(before + i)];
        }
    }

  private:
    template <typename Visit>
    void each_border(Visit visit) const {
        for (int64_t column = 0; column < before; ++column) visit(column, p.columns[column]);
        for (int64_t column = before + p.width; column < padded_width; ++column)
            visit(column, p.columns[column]);
    }
};

// Channels that share one load of the taps.
constexpr int kChannels = 4;

// The buffers of one thread for one tile of rows of up to kChannels channels.
template <typename T, typename A>
struct PlanarTile {
    using V = Lanes<A, kLanes>;
    const Problem& p;
    Taps<A> maker;
    const PhaseRows<A> phases;
    const int64_t plane, out_plane;  // values of one channel
    const int64_t packed_size;
    Buffer<A> taps, open, grad_taps, packed, grad_packed, line;
    int64_t first = 0, last = 0;

    PlanarTile(const Problem& problem, bool forward)
        : p(problem), maker(p), phases(p, maker.pitch),
          plane(p.height * p.width), out_plane(p.out_height * p.out_width),
          packed_size(((maker.tile - 1) * p.stride + p.kernel) * phases.row),
          taps(maker.tile * maker.size), open(forward ? 0 : maker.tile * maker.size),
          grad_taps(open.size()), packed(kChannels * packed_size),
          grad_packed(forward ? 0 : packed.size()), line(kChannels * maker.pitch) {}

    void place(int64_t index) {
        first = index * maker.tile;
        last = std::min(first + maker.tile, p.out_height);
    }
    A* row_of(Buffer<A>& rows, int64_t h) const { return rows.data() + (h - first) * maker.size; }
    int64_t top() const { return first * p.stride; }
    int64_t bottom() const { return (last - 1) * p.stride + p.kernel; }

    void pack(const T* x, A* target) {
        for (int64_t r = top(); r < bottom(); ++r, target += phases.row) {
            if (p.rows[r] < 0) std::fill_n(target, phases.row, A(0));
            else phases.pack(x + p.rows[r] * p.width, target);
        }
    }

    void add_unpacked(A* source, A* x) {
        for (int64_t r = top(); r < bottom(); ++r, source += phases.row)
            if (p.rows[r] >= 0) phases.add_unpacked(source, x + p.rows[r] * p.width);
    }

    // C channels of one group from `x` to `y`, planes of which lie one after the other.
    template <int C>
    void forward(const T* x, T* y) {
        for (int c = 0; c < C; ++c) pack(x + c * plane, packed.data() + c * packed_size);
        for (int64_t h = first; h < last; ++h) {
            const A* window = packed.data() + (h - first) * p.stride * phases.row;
            const A* tap = row_of(taps, h);
            for (int64_t w = 0; w < maker.pitch; w += kLanes) {
                V total[C];
                for (int c = 0; c < C; ++c) total[c] = V::of(0);
                for (int64_t t = 0; t < maker.area; ++t) {
                    const V weight = V::load(tap + t * maker.pitch + w);
                    const A* value = window + phases.offset[t] + w;
                    for (int c = 0; c < C; ++c) total[c].add(weight, V::load(value + c * packed_size));
                }
                for (int c = 0; c < C; ++c) total[c].store(line.data() + c * maker.pitch + w);
            }
            for (int c = 0; c < C; ++c)
                for (int64_t w = 0; w < p.out_width; ++w)
                    y[c * out_plane + h * p.out_width + w] = narrow<T>(line[c * maker.pitch + w]);
        }
    }

    // Adds to the gradients of the taps and of x, where wanted.
    template <int C>
    void backward(const T* x, const T* grad, A* grad_x) {
        for (int c = 0; c < C; ++c) pack(x + c * plane, packed.data() + c * packed_size);
        std::fill_n(grad_packed.data(), C * packed_size, A(0));
        for (int64_t h = first; h < last; ++h) {
            // Lanes beyond the row's end stay zero, so what they add anywhere is zero.
            for (int c = 0; c < C; ++c)
                for (int64_t w = 0; w < p.out_width; ++w)
                    line[c * maker.pitch + w] = widen(grad[c * out_plane + h * p.out_width + w]);
            const int64_t shift = (h - first) * p.stride * phases.row;
            for (int64_t t = 0; t < maker.area; ++t) {
                const A* window = packed.data() + shift + phases.offset[t];
                A* grad_window = grad_packed.data() + shift + phases.offset[t];
                const A* tap = row_of(taps, h) + t * maker.pitch;
                A* grad_tap = row_of(grad_taps, h) + t * maker.pitch;
                for (int64_t w = 0; w < maker.pitch; w += kLanes) {
                    const V weight = V::load(tap + w);
                    V total = V::load(grad_tap + w);
                    for (int c = 0; c < C; ++c) {
                        const V arriving = V::load(line.data() + c * maker.pitch + w);
                        total.add(arriving, V::load(window + c * packed_size + w));
                        if (!grad_x) continue;
                        V passed = V::load(grad_window + c * packed_size + w);
                        passed.add(arriving, weight);
                        passed.store(grad_window + c * packed_size + w);
                    }
                    total.store(grad_tap + w);
                }
            }
        }
        for (int c = 0; grad_x && c < C; ++c)
            add_unpacked(grad_packed.data() + c * packed_size, grad_x + c * plane);
    }
};

// Calls `visit(c, width)` for the channels from `first` to `last`, kChannels or one at a time.
template <typename Visit>
void each_block(int64_t first, int64_t last, Visit visit) {
    int64_t c = first;
    for (; c + kChannels <= last; c += kChannels) visit(c, std::integral_constant<int, kChannels>());
    for (; c < last; ++c) visit(c, std::integral_constant<int, 1>());
}

template <typename T, typename A>
void planar_forward(const Problem& p) {
    const int64_t tile = Taps<A>::tile_rows(p), tiles = (p.out_height + tile - 1) / tile;
    const int64_t per_group = p.channels / p.groups;
    #pragma omp parallel num_threads(p.threads)
    {
        PlanarTile<T, A> work(p, true);
        #pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < p.batch * p.groups * tiles; ++unit) {
            const int64_t plane = unit / tiles, n = plane / p.groups, g = plane % p.groups;
            work.place(unit % tiles);
            for (int64_t h = work.first; h < work.last; ++h)
                work.maker.compute(n, g, h, work.row_of(work.taps, h), work.row_of(work.taps, h));
            each_block(plane * per_group, (plane + 1) * per_group, [&](int64_t c, auto channels) {
                work.template forward<channels()>(static_cast<const T*>(p.x) + c * work.plane,
                                                  static_cast<T*>(p.y) + c * work.out_plane);
            });
        }
    }
}

template <typename T, typename A>
void planar_backward(const Problem& p) {
    const int64_t tile = Taps<A>::tile_rows(p), tiles = (p.out_height + tile - 1) / tile;
    const int64_t per_group = p.channels / p.groups;
    #pragma omp parallel num_threads(p.threads)
    {
        PlanarTile<T, A> work(p, false);
        #pragma omp for schedule(dynamic)
        for (int64_t plane = 0; plane < p.batch * p.groups; ++plane) {
            const int64_t n = plane / p.groups, g = plane % p.groups;
            double grad_gate = 0;
            for (int64_t index = 0; index < tiles; ++index) {
                work.place(index);
                for (int64_t h = work.first; h < work.last; ++h)
                    work.maker.compute(n, g, h, work.row_of(work.open, h), work.row_of(work.taps, h));
                std::fill(work.grad_taps.begin(), work.grad_taps.end(), A(0));
                each_block(plane * per_group, (plane + 1) * per_group, [&](int64_t c, auto channels) {
                    work.template backward<channels()>(
                        static_cast<const T*>(p.x) + c * work.plane,
                        static_cast<const T*>(p.grad_y) + c * work.out_plane,
                        p.grad_x ? static_cast<A*>(p.grad_x) + c * work.plane : nullptr);
                });
                for (int64_t h = work.first; p.grad_logits && h < work.last; ++h) {
                    work.maker.compute(n, g, h, work.row_of(work.open, h), work.row_of(work.taps, h));
                    grad_gate += work.maker.backward(n, g, h, work.row_of(work.open, h),
                                                     work.row_of(work.grad_taps, h));
                }
            }
            if (p.grad_gate) static_cast<A*>(p.grad_gate)[plane] = A(grad_gate);
        }
    }
}
