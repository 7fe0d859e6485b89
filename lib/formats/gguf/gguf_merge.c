/* SPDX-License-Identifier: MIT */
#include "formats/gguf/gguf_merge.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

#define MERGED_VERSION 3U

static const struct gguf_header *header_of(const struct tensor_set *set)
{
    return set->detail;
}

/* ---- are these the splits of one model? --------------------------------------------------------
 */

/* The value of an integer key. 1: it is there, 0: it is not, -EINVAL: it has another type. */
static int integer(const struct gguf_header *header, const char *key, enum gguf_type type,
                   int64_t *out)
{
    const struct gguf_pair *pair = gguf_find(header, key);
    uint16_t small;
    uint32_t word;

    if (pair == NULL)
        return 0;
    if (pair->type != type || pair->is_array)
        return -EINVAL;
    if (type == GGUF_U16) {
        memcpy(&small, pair->value, sizeof small);
        *out = le16toh(small);
    } else {
        memcpy(&word, pair->value, sizeof word);
        *out = (int32_t)le32toh(word);
    }
    return 1;
}

struct expected_key {
    const char *name;
    enum gguf_type type;
    const char *type_name;
    int64_t value;
    bool required;
};

static int check_key(const struct gguf_header *header, const struct expected_key *expected,
                     const char *component, size_t number, struct unshard_error *error)
{
    int64_t value = 0;
    int found = integer(header, expected->name, expected->type, &value);

    if (found < 0)
        return error_set(error, "split-mismatch", 0, "%s: split %zu: key \"%s\" is no %s",
                         component, number, expected->name, expected->type_name);
    if (found == 0 && expected->required)
        return error_set(error, "split-mismatch", 0,
                         "%s: split %zu: key \"%s\" is missing: this is no split of a model",
                         component, number, expected->name);
    if (found > 0 && value != expected->value)
        return error_set(error, "split-mismatch", 0,
                         "%s: split %zu: key \"%s\" is %" PRId64 ", it should be %" PRId64,
                         component, number, expected->name, value, expected->value);
    return 0;
}

/* Like the loader of llama.cpp: every split has its number, the first one all three keys. */
static int check_split(const struct tensor_set *sets, size_t set_count, size_t index,
                       uint64_t total, const char *component, struct unshard_error *error)
{
    const struct expected_key keys[] = {
        {"split.no", GGUF_U16, "u16", (int64_t)index, true},
        {"split.count", GGUF_U16, "u16", (int64_t)set_count, index == 0},
        {"split.tensors.count", GGUF_I32, "i32", (int64_t)total, index == 0},
    };
    int result = 0;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && result == 0; i++)
        result = check_key(header_of(&sets[index]), &keys[i], component, index + 1, error);
    return result;
}

/* ---- the header --------------------------------------------------------------------------------
 */

static void write_u16(struct text *text, uint16_t value)
{
    value = htole16(value);
    text_append(text, &value, sizeof value);
}

static void write_u32(struct text *text, uint32_t value)
{
    value = htole32(value);
    text_append(text, &value, sizeof value);
}

static void write_u64(struct text *text, uint64_t value)
{
    value = htole64(value);
    text_append(text, &value, sizeof value);
}

static void write_string(struct text *text, const char *bytes, size_t length)
{
    write_u64(text, length);
    text_append(text, bytes, length);
}

/* The tool keeps strings as C strings: cut at the first NUL. */
static void write_strings(struct text *text, const struct gguf_pair *pair)
{
    const unsigned char *at = pair->value;

    for (uint64_t i = 0; i < pair->count; i++) {
        uint64_t length;

        memcpy(&length, at, sizeof length);
        length = le64toh(length);
        at += sizeof length;
        write_string(text, (const char *)at, strnlen((const char *)at, length));
        at += length;
    }
}

static void write_booleans(struct text *text, const struct gguf_pair *pair)
{
    for (uint64_t i = 0; i < pair->count; i++) {
        char value = pair->value[i] != 0;

        text_append(text, &value, 1);
    }
}

static void write_pair(struct text *text, const struct gguf_pair *pair)
{
    write_string(text, pair->key, pair->key_length);
    if (pair->is_array)
        write_u32(text, GGUF_ARRAY);
    write_u32(text, pair->type);
    if (pair->is_array)
        write_u64(text, pair->count);
    if (pair->type == GGUF_STRING)
        write_strings(text, pair);
    else if (pair->type == GGUF_BOOL)
        write_booleans(text, pair);
    else
        text_append(text, pair->value, pair->value_length);
}

/* Those of the first split; split.count moves to the end and becomes 0, which tells loaders that
 * there is nothing to merge any more. */
static void write_pairs(struct text *text, const struct gguf_header *header)
{
    static const char count_key[] = "split.count";
    const struct gguf_pair *count = gguf_find(header, count_key);

    for (size_t i = 0; i < header->pair_count; i++)
        if (&header->pairs[i] != count)
            write_pair(text, &header->pairs[i]);
    write_string(text, count_key, sizeof count_key - 1);
    write_u32(text, GGUF_U16);
    write_u16(text, 0);
}

static void write_tensor(struct text *text, const struct tensor *tensor, uint32_t type,
                         uint64_t offset)
{
    uint32_t rank = tensor->rank;

    while (rank > 1 && tensor->shape[rank - 1] == 1)
        rank--;
    write_string(text, tensor->name, tensor->name_length);
    write_u32(text, rank > 0 ? rank : 1);
    for (uint32_t i = 0; i < rank; i++)
        write_u64(text, tensor->shape[i]);
    if (rank == 0)
        write_u64(text, 1);
    write_u32(text, type);
    write_u64(text, offset);
}

/* ---- the layout --------------------------------------------------------------------------------
 */

static int add_tensors(const struct tensor_set *set, uint64_t alignment, uint64_t *offset,
                       struct file_layout *out)
{
    const struct gguf_header *header = header_of(set);

    for (size_t i = 0; i < set->tensor_count; i++) {
        const struct tensor *tensor = &set->tensors[i];
        uint64_t padding = (alignment - tensor->length % alignment) % alignment;

        write_tensor(&out->header, tensor, header->types[i], *offset);
        out->tensors[out->tensor_count] = tensor;
        out->padding[out->tensor_count++] = (uint32_t)padding;
        if (!checked_add(*offset, tensor->length, offset) || !checked_add(*offset, padding, offset))
            return -EOVERFLOW;
    }
    return 0;
}

static int allocate(uint64_t total, struct file_layout *out)
{
    out->tensors = calloc(total + 1, sizeof *out->tensors);
    out->padding = calloc(total + 1, sizeof *out->padding);
    return out->tensors == NULL || out->padding == NULL ? -ENOMEM : 0;
}

static int lay_out(const struct tensor_set *sets, size_t set_count, uint64_t total,
                   struct file_layout *out)
{
    static const char zeros[4096];
    const struct gguf_header *first = header_of(&sets[0]);
    uint64_t alignment = first->alignment, offset = 0;
    int result = allocate(total, out);

    text_append(&out->header, "GGUF", 4);
    write_u32(&out->header, MERGED_VERSION);
    write_u64(&out->header, total);
    write_u64(&out->header, first->pair_count);
    write_pairs(&out->header, first);
    for (size_t i = 0; i < set_count && result == 0; i++)
        result = add_tensors(&sets[i], alignment, &offset, out);
    while (out->header.length % alignment != 0 && !out->header.failed) {
        uint64_t gap = alignment - out->header.length % alignment;

        text_append(&out->header, zeros, gap < sizeof zeros ? gap : sizeof zeros);
    }
    return result == 0 && out->header.failed ? -ENOMEM : result;
}

bool gguf_is_split(const struct tensor_set *set)
{
    return set->detail != NULL && gguf_find(header_of(set), "split.count") != NULL;
}

int gguf_lay_out(const struct tensor_set *sets, size_t set_count, enum unshard_order order,
                 const char *component, struct file_layout *out, struct unshard_error *error)
{
    uint64_t total = 0;
    int result = 0;

    (void)order; /* there is one */
    *out = (struct file_layout){0};
    if (set_count == 0)
        return error_set(error, "split-mismatch", 0, "%s: no split at all", component);
    for (size_t i = 0; i < set_count; i++)
        total += sets[i].tensor_count;
    for (size_t i = 0; i < set_count && result == 0; i++)
        result = check_split(sets, set_count, i, total, component, error);
    if (result != 0)
        return result;
    result = lay_out(sets, set_count, total, out);
    if (header_of(&sets[0])->alignment != GGUF_DEFAULT_ALIGNMENT)
        out->note = "The data is laid out with the file's own general.alignment; llama-gguf-split "
                    "would use 32 all the same.";
    if (result != 0)
        file_layout_free(out);
    if (result == -EOVERFLOW)
        return error_set(error, "too-large", EOVERFLOW,
                         "%s: the sizes of all tensors together overflow", component);
    return result == 0 ? 0 : error_no_memory(error);
}
