/* The dynamic kernel (DKIC, equation 4) and its gradients in one pass each, for training on processors.

   All arrays are dense with channels last: features, out (batch, height, width, groups, CHANNELS); offsets (batch,
   height, width, groups, kernel, 2), x before y; modulation (batch, height, width, groups, kernel). CHANNELS, those of
   one group, and REAL are defined by the compiler's command line. Work is divided into batch * groups units, which
   touch disjoint channels, so that threads never write to the same place. */

#include <math.h>
#include <stddef.h>

typedef struct {
    ptrdiff_t height, width, groups, side;
} shape;

typedef struct {
    ptrdiff_t at[4];    /* where the corners lie in the unit's features; -1 outside */
    REAL weight[4];     /* bilinear */
    REAL by_x[4], by_y[4]; /* derivatives of the weights */
} sample;

static inline void locate(sample *s, const shape *n, REAL x, REAL y) {
    const REAL left = floor(x), top = floor(y), right = x - left, below = y - top;
    const REAL along_x[2] = {1 - right, right}, along_y[2] = {1 - below, below}, sign[2] = {-1, 1};
    /* far outside, a conversion to an integer would overflow */
    const int near = left >= -1 && top >= -1 && left < n->width && top < n->height;
    for (int i = 0; i < 4; i++) {
        const ptrdiff_t column = near ? (ptrdiff_t)left + i % 2 : -1, row = near ? (ptrdiff_t)top + i / 2 : -1;
        const int inside = column >= 0 && row >= 0 && column < n->width && row < n->height;
        s->at[i] = inside ? (row * n->width + column) * n->groups * CHANNELS : -1;
        s->weight[i] = along_x[i % 2] * along_y[i / 2];
        s->by_x[i] = sign[i % 2] * along_y[i / 2];
        s->by_y[i] = along_x[i % 2] * sign[i / 2];
    }
}

void forward(const REAL *features, const REAL *offsets, const REAL *modulation, REAL *out, shape n, ptrdiff_t begin,
             ptrdiff_t end) {
    const ptrdiff_t area = n.height * n.width, kernel = n.side * n.side;
    for (ptrdiff_t unit = begin; unit < end; unit++) {
        const ptrdiff_t first = unit / n.groups * area * n.groups + unit % n.groups;
        for (ptrdiff_t p = 0; p < area; p++) {
            const ptrdiff_t here = first + p * n.groups;
            REAL sum[CHANNELS] = {0};
            for (ptrdiff_t k = 0; k < kernel; k++) {
                const REAL *offset = offsets + (here * kernel + k) * 2, weight = modulation[here * kernel + k];
                sample s;
                locate(&s, &n, p % n.width + k % n.side - n.side / 2 + offset[0],
                       p / n.width + k / n.side - n.side / 2 + offset[1]);
                for (int i = 0; i < 4; i++) {
                    if (s.at[i] < 0) continue;
                    const REAL *corner = features + first * CHANNELS + s.at[i], factor = weight * s.weight[i];
                    for (int c = 0; c < CHANNELS; c++) sum[c] += factor * corner[c];
                }
            }
            for (int c = 0; c < CHANNELS; c++) out[here * CHANNELS + c] = sum[c];
        }
    }
}

/* to_features must hold zeros. */
void backward(const REAL *features, const REAL *offsets, const REAL *modulation, const REAL *gradient,
              REAL *to_features, REAL *to_offsets, REAL *to_modulation, shape n, ptrdiff_t begin, ptrdiff_t end) {
    const ptrdiff_t area = n.height * n.width, kernel = n.side * n.side;
    for (ptrdiff_t unit = begin; unit < end; unit++) {
        const ptrdiff_t first = unit / n.groups * area * n.groups + unit % n.groups;
        for (ptrdiff_t p = 0; p < area; p++) {
            const ptrdiff_t here = first + p * n.groups;
            REAL g[CHANNELS];
            for (int c = 0; c < CHANNELS; c++) g[c] = gradient[here * CHANNELS + c];
            for (ptrdiff_t k = 0; k < kernel; k++) {
                const REAL *offset = offsets + (here * kernel + k) * 2, weight = modulation[here * kernel + k];
                REAL of_weight = 0, of_x = 0, of_y = 0;
                sample s;
                locate(&s, &n, p % n.width + k % n.side - n.side / 2 + offset[0],
                       p / n.width + k / n.side - n.side / 2 + offset[1]);
                for (int i = 0; i < 4; i++) {
                    if (s.at[i] < 0) continue;
                    const ptrdiff_t at = first * CHANNELS + s.at[i];
                    const REAL factor = weight * s.weight[i];
                    REAL product = 0;
                    for (int c = 0; c < CHANNELS; c++) {
                        product += g[c] * features[at + c];
                        to_features[at + c] += factor * g[c];
                    }
                    of_weight += s.weight[i] * product;
                    of_x += s.by_x[i] * product;
                    of_y += s.by_y[i] * product;
                }
                to_modulation[here * kernel + k] = of_weight;
                to_offsets[(here * kernel + k) * 2] = weight * of_x;
                to_offsets[(here * kernel + k) * 2 + 1] = weight * of_y;
            }
        }
    }
}
