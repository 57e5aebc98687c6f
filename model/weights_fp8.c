#include "model/weights_fp8.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "model/model_impl.h"
#include "model/weights_convert.h"

struct fp8_weight {
    struct fp8_grid grid;
    const struct matrix *matrix;
    const char *name;
    size_t scales;
    float scale[];
};

/* Rows of one matrix, side by side, of whole width. */
bool weights_fp8_takes(const struct weight *w, const struct weight_spec *s)
{
    struct weight_fp8 f;
    const uint64_t first = weights_first_row(s) + (uint64_t)s->first;
    return s->take_cols && (uint64_t)s->take_cols == w->cols && !s->as_floats && !s->flip &&
           s->step == 1 && weight_as_fp8(w, &f) && f.col_block <= INT32_MAX &&
           f.row_block <= INT32_MAX && fp8_takes((int32_t)f.col_block, s->take_cols) &&
           first % f.matrix_rows + (uint64_t)s->take_rows <= f.matrix_rows;
}

enum status weights_fp8_bind(struct fp8_list *list, const struct weight *w,
                             const struct weight_spec *s)
{
    struct weight_fp8 f;
    const uint64_t first = weights_first_row(s) + (uint64_t)s->first;
    weight_as_fp8(w, &f);
    const uint64_t into = first % f.matrix_rows % f.row_block;
    const uint64_t grid_rows = (into + (uint64_t)s->take_rows - 1) / f.row_block + 1;
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        struct fp8_weight **v = realloc(list->v, cap * sizeof(struct fp8_weight *));
        if (!v)
            return ST_NO_MEMORY;
        list->v = v;
        list->cap = cap;
    }
    struct fp8_weight *one =
        malloc(sizeof *one + (size_t)(grid_rows * f.scale_cols) * sizeof *one->scale);
    if (!one)
        return ST_NO_MEMORY;
    one->matrix = s->matrix;
    one->name = w->name;
    one->scales = (size_t)(grid_rows * f.scale_cols);
    for (uint64_t g = 0; g < grid_rows; g++)
        weight_read_fp8_scales(w, first - into + g * f.row_block, one->scale + g * f.scale_cols);
    one->grid = (struct fp8_grid){.scale = one->scale,
                                  .row_block = (int32_t)f.row_block,
                                  .col_block = (int32_t)f.col_block,
                                  .first = (int32_t)into,
                                  .scale_cols = (int32_t)f.scale_cols};
    s->matrix->data = f.data + first * w->cols;
    s->matrix->fp8 = &one->grid;
    list->v[list->n++] = one;
    return ST_OK;
}

struct fp8_check {
    const struct fp8_list *list;
    struct stop *stop;
    atomic_size_t next;
    atomic_size_t bad; /* 1 + the first that was found */
};

static bool is_good(const struct fp8_weight *w)
{
    const size_t n = (size_t)w->matrix->rows * (size_t)w->matrix->cols;
    return weights_find_nonfinite(w->scale, DTYPE_F32, w->scales) == w->scales &&
           (w->matrix->panels || fp8_find_nan(w->matrix->data, n) == n);
}

static void check_body(void *arg, int part, int parts)
{
    struct fp8_check *c = arg;
    (void)parts;
    for (size_t i; !stop_here(c->stop, part) && (i = atomic_fetch_add(&c->next, 1)) < c->list->n;) {
        size_t none = 0;
        if (!is_good(c->list->v[i]))
            atomic_compare_exchange_strong(&c->bad, &none, i + 1);
    }
}

const char *weights_fp8_check(const struct fp8_list *list, struct team *team, struct stop *stop)
{
    struct fp8_check c = {.list = list, .stop = stop};
    if (list->n > 0)
        team_run(team, check_body, &c);
    size_t bad = atomic_load(&c.bad);
    return bad ? list->v[bad - 1]->name : NULL;
}

void weights_fp8_fini(struct fp8_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->v[i]);
    free(list->v);
    *list = (struct fp8_list){0};
}
