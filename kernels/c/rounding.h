/* Rounding activations to signed bytes. */
#ifndef MINISLM_ROUNDING_H
#define MINISLM_ROUNDING_H
#include "kernel.h"

/* Round n numbers as the op does, by a given scale or, if that is below 0, by their own; return it. */
static float round_group(const float *x, int64_t n, float given, int8_t *codes) {
    uint32_t largest = 0; /* magnitudes compare as their bits do, read as whole numbers: infinity and NaN come last */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    const int finite = largest < 0x7f800000;
    const float steps = given < 0 ? 127 : 1;
    float size = given;
    if (given < 0) memcpy(&size, &largest, 4);
    const float inverse = steps / size;
    if (size >= 0x1p-120f && finite)
        for (int64_t i = 0; i < n; i++) {
            float code = rintf(x[i] * inverse);
            code = code > 127 ? 127 : code;
            code = code < -127 ? -127 : code;
            codes[i] = (int8_t)(int32_t)code;
        }
    else
        for (int64_t i = 0; i < n; i++) codes[i] = 0;
    return !finite ? NAN : size >= 0x1p-120f ? size / steps : 0;
}

#endif
