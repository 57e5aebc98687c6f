/* Errors as the API's clients know them: OpenAI's types and codes. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "router/api.h"

bool api_fail(struct api_error *err, int status, const char *code, const char *param,
              const char *fmt, ...)
{
    va_list ap;
    err->status = status;
    err->code = code;
    snprintf(err->param, sizeof err->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    return false;
}

void api_fail_status(struct api_error *err, enum status status, const char *text)
{
    int http = 500;
    const char *code = "internal_error";
    switch (status) {
    case ST_INVALID:
    case ST_UNSUPPORTED:
        http = 400;
        code = strncmp(text, "This model's maximum context length", 35) == 0
                   ? "context_length_exceeded"
                   : "invalid_value";
        break;
    case ST_NEVER_FITS:
        http = 400;
        code = "context_length_exceeded";
        break;
    case ST_NOT_FOUND:
        http = 404;
        code = "not_found";
        break;
    case ST_DENIED:
        http = 401;
        code = "invalid_api_key";
        break;
    case ST_BUSY:
        http = 429;
        code = "rate_limit_exceeded";
        break;
    case ST_LINK:
        http = 503;
        code = "unavailable";
        break;
    case ST_DEADLINE:
        http = 504;
        code = "timeout";
        break;
    case ST_CANCELLED:
        http = 499;
        code = "cancelled";
        break;
    default:
        break;
    }
    api_fail(err, http, code, NULL, "%s", text && text[0] ? text : "Internal server error.");
}

static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void api_render_error(struct buf *out, const struct api_error *err)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    jw_key(&w, "error");
    jw_obj(&w);
    jw_key(&w, "message");
    jw_str(&w, err->message);
    jw_key(&w, "type");
    jw_str(&w, type_of(err->status));
    jw_key(&w, "param");
    if (err->param[0])
        jw_str(&w, err->param);
    else
        jw_null(&w);
    jw_key(&w, "code");
    if (err->code)
        jw_str(&w, err->code);
    else
        jw_null(&w);
    jw_end_obj(&w);
    jw_end_obj(&w);
}

int api_retry_after_s(const struct api_error *err)
{
    return err->status == 429 ? 1 : err->status == 503 ? 2 : 0;
}
