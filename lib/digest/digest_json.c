/* SPDX-License-Identifier: MIT */
#include "digest/digest_json.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>

static size_t line_of(const struct json_reader *reader, size_t offset)
{
    size_t line = 1;
    for (const char *at = reader->start; at < reader->start + offset; at++)
        line += *at == '\n';
    return line;
}

int digest_json_refuse(struct digest_json *json, size_t offset, const char *where,
                       const char *problem)
{
    return error_set_at(json->error, json->code, 0, offset, "%s line %zu: %s: %s", json->path,
                        line_of(&json->reader, offset), where, problem);
}

int digest_json_failed(struct digest_json *json, int result, const char *where)
{
    char problem[128];
    if (result == -ENOMEM)
        return error_no_memory(json->error);
    snprintf(problem, sizeof problem, "%s at byte %zu",
             json->reader.problem != NULL ? json->reader.problem : "malformed",
             json->reader.problem_offset);
    return digest_json_refuse(json, json->reader.problem_offset, where, problem);
}

int digest_json_read_digest(struct digest_json *json, enum digest_algorithm algorithm,
                            const char *where, struct digest *out)
{
    struct json_string hex;
    char problem[96];
    size_t offset = json_offset(&json->reader);
    int result = json_read_string(&json->reader, &hex);
    if (result != 0)
        return digest_json_failed(json, result, where);
    if (digest_from_hex(algorithm, hex.bytes, hex.length, out))
        return 0;
    snprintf(problem, sizeof problem, "not a %s of %zu hexadecimal digits",
             digest_algorithm_name(algorithm), 2 * digest_size(algorithm));
    return digest_json_refuse(json, offset, where, problem);
}
