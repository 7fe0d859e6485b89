/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "formats/safetensors/safetensors.h"
#include "json/json_string.h"

static void write_metadata(struct text *text, const struct metadata_entry *metadata, size_t count)
{
    text_append_string(text, "\"__metadata__\":{");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            text_append(text, ",", 1);
        json_string_write(text, metadata[i].key, metadata[i].key_length);
        text_append(text, ":", 1);
        json_string_write(text, metadata[i].value, metadata[i].value_length);
    }
    text_append(text, "}", 1);
}

static void write_tensor(struct text *text, const struct tensor *tensor, uint64_t begin,
                         uint64_t end)
{
    json_string_write(text, tensor->name, tensor->name_length);
    text_append_string(text, ":{\"dtype\":\"");
    text_append_string(text, dtype_name(tensor->dtype));
    text_append_string(text, "\",\"shape\":[");
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (i > 0)
            text_append(text, ",", 1);
        text_append_u64(text, tensor->shape[i]);
    }
    text_append_string(text, "],\"data_offsets\":[");
    text_append_u64(text, begin);
    text_append(text, ",", 1);
    text_append_u64(text, end);
    text_append_string(text, "]}");
}

static int write_tensors(struct text *text, const struct tensor *const *tensors, size_t count,
                         bool separate, struct unshard_error *error)
{
    uint64_t begin = 0, end;

    for (size_t i = 0; i < count; i++) {
        if (!checked_add(begin, tensors[i]->length, &end))
            return error_set(error, "too-large", EOVERFLOW,
                             "the sizes of all tensors together overflow");
        if (separate)
            text_append(text, ",", 1);
        separate = true;
        write_tensor(text, tensors[i], begin, end);
        begin = end;
    }
    return 0;
}

static void store_u64(char *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (char)(unsigned char)(value >> (8 * i));
}

static void append_spaces(struct text *text, uint64_t count)
{
    static const char spaces[] = "                                                                ";

    while (count > 0) {
        size_t piece = count < sizeof spaces - 1 ? (size_t)count : sizeof spaces - 1;

        text_append(text, spaces, piece);
        count -= piece;
    }
}

int safetensors_write_header(const struct tensor *const *tensors, size_t tensor_count,
                             const struct metadata_entry *metadata, size_t metadata_count,
                             bool have_metadata, uint64_t alignment, struct text *out,
                             struct unshard_error *error)
{
    size_t start = out->length;
    int result;

    text_append(out, "\0\0\0\0\0\0\0\0{", 9);
    if (have_metadata)
        write_metadata(out, metadata, metadata_count);
    result = write_tensors(out, tensors, tensor_count, have_metadata, error);
    text_append(out, "}", 1);

    uint64_t length = out->length - start;
    uint64_t padding = (alignment - length % alignment) % alignment;

    append_spaces(out, padding);
    if (result != 0)
        return result;
    if (out->failed)
        return error_no_memory(error);
    length = out->length - start - 8;
    if (length > SAFETENSORS_MAX_HEADER)
        return error_set(error, "header-too-large", 0,
                         "merged header of %" PRIu64 " bytes is above the limit of %" PRIu64,
                         length, SAFETENSORS_MAX_HEADER);
    store_u64(out->data + start, length);
    return 0;
}
