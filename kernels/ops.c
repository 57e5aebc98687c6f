#include "kernels/ops.h"

#include <string.h>

#include "base/team.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

static const struct ops ref = {
    .name = "ref",
    .embed = ref_embed,
    .rmsnorm = ref_rmsnorm,
    .quantize = ref_quantize,
    .gemm = ref_gemm,
    .rope = ref_rope,
    .kv_store = ref_kv_store,
    .attention = ref_attention,
    .glu = ref_glu,
    .softcap = ref_softcap,
    .route = ref_route,
    .combine = ref_combine,
};

/* The CPU bodies, best first. */
static const struct body {
    const struct ops *ops;
    bool (*supported)(void);
    bool (*worth)(void); /* NULL: where it is supported; else what "auto" asks */
} bodies[] = {
#if defined(BATON_AMX)
    {&cpu_ops_amx, cpu_has_amx, NULL},
#endif
#if defined(__x86_64__)
    {&cpu_ops_bf16, cpu_has_bf16, cpu_has_fast_bf16},
    {&cpu_ops_vnni, cpu_has_vnni, NULL},
    {&cpu_ops_amx_emulated, cpu_has_vnni, cpu_never},
    {&cpu_ops_avx512, cpu_has_avx512, NULL},
    {&cpu_ops_avx2, cpu_has_avx2, NULL},
#endif
    {&cpu_ops_portable, cpu_has_portable, NULL},
};

#define BODIES (sizeof bodies / sizeof bodies[0])

#define GATED_ROWS 48 /* fewer wait for memory, or are for vectors (tiles_bytes_body.h) */

static bool packed_alike(const struct packed *a, const struct packed *b)
{
    return a->bits == b->bits && a->group == b->group && a->zero == b->zero &&
           a->has_min == b->has_min && a->has_table == b->has_table && a->order == b->order &&
           (!a->has_table || memcmp(a->table, b->table, sizeof a->table) == 0) &&
           a->scale_type == b->scale_type;
}

bool ops_gates(const struct ops *o, const struct op_gemm *a, const struct matrix *up)
{
    const struct matrix *w = a->w;
    if (!o->gates || a->tokens < GATED_ROWS || a->scale != 0 || a->accumulate ||
        w->rows != up->rows || w->cols != up->cols)
        return false;
    if (w->panels || up->panels) /* FP8 has no units */
        return w->panels && up->panels && !w->fp8 && !up->fp8;
    return o->tiles && w->packed && up->packed && !w->wide_rows && !up->wide_rows &&
           packed_alike(w->packed, up->packed);
}

size_t ops_gemm_blocks(const struct ops *o, const struct op_gemm *a)
{
    const bool lines = (a->w->panels && !a->w->fp8) || (matrix_reads_bytes(a->w) && a->x8->whole);
    if (o->block_rows == 0 || !lines)
        return 1;
    return ops_blocks((size_t)a->tokens, (size_t)o->block_rows);
}

void ops_cut_rows(const struct op_gemm *a, size_t first, size_t n, struct op_gemm_rows *out)
{
    struct op_gemm *op = &out->op;
    *op = *a;
    op->tokens = (int32_t)n;
    if (op->out)
        op->out += first * (size_t)(a->out_stride ? a->out_stride : a->w->rows);
    if (op->x)
        op->x += first * (size_t)(a->x_stride ? a->x_stride : a->w->cols);
    if (op->x16)
        op->x16 += first * rows16_stride(a->w->cols);
    if (op->x8) {
        out->x8 = rows8_from(a->x8, first);
        op->x8 = &out->x8;
    }
    if (op->unit) {
        out->unit = *a->unit;
        if (out->unit.out16)
            out->unit.out16 += first * rows16_stride(a->w->rows);
        op->unit = &out->unit;
    }
}

void ops_cut_block(const struct op_gemm *a, size_t block, size_t blocks, struct op_gemm_rows *out)
{
    size_t first, last;
    team_split((size_t)a->tokens, OPS_BLOCK_GRAIN, (int)block, (int)blocks, &first, &last);
    ops_cut_rows(a, first, last - first, out);
}

const struct ops *ops_ref(void)
{
    return &ref;
}

enum status ops_cpu(const char *features, const struct ops **out, struct error *err)
{
    bool automatic = strcmp(features, "auto") == 0;
    for (size_t i = 0; i < BODIES; i++) {
        if (!automatic && strcmp(features, bodies[i].ops->name) != 0)
            continue;
        if (automatic && bodies[i].worth && !bodies[i].worth())
            continue;
        if (bodies[i].supported()) {
            *out = bodies[i].ops;
            return ST_OK;
        }
        if (!automatic)
            return err_set(err, ST_UNSUPPORTED, "cpu features %s: this CPU or its OS lacks them",
                           features);
    }
    return err_set(err, ST_UNSUPPORTED,
                   "cpu features %s: expected auto, portable, avx2, avx512, "
                   "avx512_vnni, avx512_bf16, amx or amx_emulated",
                   features);
}

const struct ops *ops_at(int i)
{
    if (i == 0)
        return &ref;
    for (size_t b = BODIES; b > 0; b--)
        if (bodies[b - 1].supported() && --i == 0)
            return bodies[b - 1].ops;
    return NULL;
}
