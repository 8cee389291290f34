// Storage types, widened to an accumulator and rounded back, and vectors with an exponential.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

template <typename To, typename From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit pattern keeps its size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float widen(float v) { return v; }
inline double widen(double v) { return v; }
inline float widen(BFloat16 v) { return bit_cast<float>(uint32_t(v.bits) << 16); }
inline float widen(Half v) {
    // A product re-biases the exponent, which gives subnormal values theirs too.
    const uint32_t magnitude = uint32_t(v.bits & 0x7fff) << 13;
    const uint32_t finite = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
    const uint32_t special = magnitude | 0x7f800000u;
    const uint32_t sign = uint32_t(v.bits & 0x8000) << 16;
    return bit_cast<float>((magnitude >= 0x0f800000u ? special : finite) | sign);
}

template <typename T, typename A>
inline T narrow(A v) {
    if constexpr (std::is_same_v<T, A>) {
        return v;
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        const uint32_t bits = bit_cast<uint32_t>(v);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        return {uint16_t(v != v ? 0x7fc0 : rounded)};
    } else {
        // The sum with 0.5 makes the float unit round a subnormal half to the nearest even one.
        const uint32_t signed_bits = bit_cast<uint32_t>(v), bits = signed_bits & 0x7fffffff;
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(bits) + 0.5f) - 0x3f000000u;
        const uint32_t normal = (bits + 0xc8000fffu + ((bits >> 13) & 1)) >> 13;
        const uint32_t special = bits > 0x7f800000u ? 0x7e00 : 0x7c00;
        const uint32_t half = bits >= 0x47800000u ? special : bits < 0x38800000u ? subnormal : normal;
        return {uint16_t(half | ((signed_bits >> 16) & 0x8000))};
    }
}

// A run of L lanes, which the compiler maps to the widest registers there are.
template <typename A, int L>
struct Lanes {
    typedef A Vector __attribute__((vector_size(L * sizeof(A))));
    Vector v;

    static Lanes of(A value) { return {Vector{} + value}; }
    static Lanes load(const A* from) {
        Lanes lanes;
        std::memcpy(&lanes.v, from, sizeof lanes.v);
        return lanes;
    }
    template <typename T>
    static Lanes load(const T* from) {
        A wide[L];
        for (int i = 0; i < L; ++i) wide[i] = widen(from[i]);
        return load(wide);
    }
    template <typename T>
    void store(T* to) const {
        if constexpr (std::is_same_v<T, A>) {
            std::memcpy(to, &v, sizeof v);
        } else {
            for (int i = 0; i < L; ++i) to[i] = narrow<T>(A(v[i]));
        }
    }
    void add(const Lanes& a, const Lanes& b) { v += a.v * b.v; }
    static Lanes larger(const Lanes& a, const Lanes& b) { return {a.v > b.v ? a.v : b.v}; }
    A sum() const {
        A total = 0;
        for (int i = 0; i < L; ++i) total += v[i];
        return total;
    }
};

template <int L>
inline Lanes<double, L> exponential(Lanes<double, L> lanes) {
    for (int i = 0; i < L; ++i) lanes.v[i] = std::exp(lanes.v[i]);
    return lanes;
}

// For values <= 0, to about one unit in the last place: Cody and Waite's reduction to
// |r| <= ln(2) / 2 and Taylor's polynomial.
template <int L>
inline Lanes<float, L> exponential(Lanes<float, L> lanes) {
    using V = Lanes<float, L>;
    typedef uint32_t Bits __attribute__((vector_size(L * sizeof(float))));
    const auto v = V::larger(lanes, V::of(-87.0f)).v;
    const auto shifted = v * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 leaves a whole number
    const auto n = shifted - 12582912.0f;
    const auto r = (v - n * 0.693359375f) + n * 2.12194440e-4f;
    auto p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Bits power = (bit_cast<Bits>(shifted) - 0x4b400000u + 127u) << 23;
    return {p * bit_cast<typename V::Vector>(power)};
}

// Starts on a cache line, so that a full vector never straddles two.
template <typename A>
struct CacheLines {
    using value_type = A;
    static constexpr std::align_val_t line{64};
    CacheLines() = default;
    template <typename B>
    CacheLines(const CacheLines<B>&) {}
    A* allocate(std::size_t n) { return static_cast<A*>(::operator new(n * sizeof(A), line)); }
    void deallocate(A* p, std::size_t) { ::operator delete(p, line); }
    bool operator==(const CacheLines&) const { return true; }
    bool operator!=(const CacheLines&) const { return false; }
};

template <typename A>
using Buffer = std::vector<A, CacheLines<A>>;
