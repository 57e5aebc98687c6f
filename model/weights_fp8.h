/* Weights in FP8 that are computed with as they are, where they lie in the file or copied into
 * panels (conversion_add_panels()), and their scales, which are copied. Private to this folder.
 *
 * Owner: the list belongs to the model's weights, and weights_fp8_fini() frees it. Thread: the one
 * that loads.
 */
#ifndef MODEL_WEIGHTS_FP8_H
#define MODEL_WEIGHTS_FP8_H

#include "base/stop.h"
#include "base/team.h"
#include "formats/weight_source.h"
#include "model/weights_list.h"

/* Whether the part of a weight that a spec takes can be multiplied as it is. */
bool weights_fp8_takes(const struct weight *w, const struct weight_spec *s);
/* Makes it the spec's matrix. ST_NO_MEMORY. */
enum status weights_fp8_bind(struct fp8_list *list, const struct weight *w,
                             const struct weight_spec *s);
/* Reads all of them, by the whole team, unless it is to stop: NULL, or the name of a tensor with an
 * element or a scale that is no number. */
const char *weights_fp8_check(const struct fp8_list *list, struct team *team, struct stop *stop);
void weights_fp8_fini(struct fp8_list *list);

#endif
