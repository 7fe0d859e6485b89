/* SPDX-License-Identifier: MIT */
#include "tree/shard_name.h"

#include "tree/loader_names.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Five digits are what writers write; DeepSeek's sets have six in the total. */
#define MIN_DIGITS 5
#define MAX_DIGITS 9

struct slice {
    const char *start;
    size_t length;
};

static bool copy_slice(char out[WEIGHT_NAME_CAPACITY], struct slice slice)
{
    if (slice.length >= WEIGHT_NAME_CAPACITY)
        return false;
    memcpy(out, slice.start, slice.length);
    out[slice.length] = '\0';
    return true;
}

/* Splits at the last dot that has something on both sides. */
static bool split_last_dot(struct slice whole, struct slice *before, struct slice *after)
{
    const char *dot = memrchr(whole.start, '.', whole.length);
    if (dot == NULL || dot == whole.start)
        return false;
    *before = (struct slice){whole.start, (size_t)(dot - whole.start)};
    *after = (struct slice){dot + 1, whole.length - before->length - 1};
    return after->length > 0;
}

static bool slice_is(struct slice slice, const char *text)
{
    return slice.length == strlen(text) && memcmp(slice.start, text, slice.length) == 0;
}

/* Takes a number of digits off the end of *slice. */
static bool take_number(struct slice *slice, uint32_t *out)
{
    size_t digits = 0;
    uint32_t value = 0, unit = 1;
    while (digits < slice->length && digits <= MAX_DIGITS) {
        char c = slice->start[slice->length - digits - 1];
        if (c < '0' || c > '9')
            break;
        if (digits < MAX_DIGITS) {
            value += (uint32_t)(c - '0') * unit;
            unit *= 10;
        }
        digits++;
    }
    slice->length -= digits;
    *out = value;
    return digits >= MIN_DIGITS && digits <= MAX_DIGITS;
}

/* "REST-NNNNN-of-MMMMM" or "REST_NNNNN-of-MMMMM". */
static bool split_number(struct slice whole, struct slice *rest, uint32_t *number, uint32_t *total)
{
    static const char middle[] = "-of-";
    const size_t middle_length = sizeof middle - 1;
    if (!take_number(&whole, total) || whole.length < middle_length ||
        memcmp(whole.start + whole.length - middle_length, middle, middle_length) != 0)
        return false;
    whole.length -= middle_length;
    if (!take_number(&whole, number) || whole.length < 2)
        return false;
    char separator = whole.start[whole.length - 1];
    whole.length--;
    *rest = whole;
    return separator == '-' || separator == '_';
}

static bool set_stem_and_variant(struct slice base, struct weight_name *out)
{
    struct slice stem = base, variant = {base.start, 0};
    if (!split_last_dot(base, &stem, &variant)) {
        stem = base;
        variant.length = 0;
    }
    return stem.length > 0 && copy_slice(out->stem, stem) && copy_slice(out->variant, variant);
}

/* Tells "STEM.EXT.V" from a stem with a dot in it. */
static bool is_weight_extension(struct slice slice)
{
    return slice_is(slice, LOADER_FIRST_EXTENSION) || slice_is(slice, LOADER_SECOND_EXTENSION);
}

/* Takes "shard-RRRRR-" off the front: what a rank of a distributed save writes. */
static void take_rank(struct slice *base, uint32_t *rank)
{
    static const char prefix[] = "shard-";
    const size_t length = sizeof prefix - 1;
    size_t digits = 0;
    if (base->length < length || memcmp(base->start, prefix, length) != 0)
        return;
    while (length + digits < base->length && base->start[length + digits] >= '0' &&
           base->start[length + digits] <= '9')
        digits++;
    size_t used = length + digits + 1;
    struct slice number = {base->start, length + digits};
    if (used >= base->length || base->start[used - 1] != '-' || !take_number(&number, rank) ||
        *rank == 0) {
        *rank = 0;
        return;
    }
    base->start += used;
    base->length -= used;
}

/* name without ".json": "STEM.EXT.index", "STEM.EXT.index.V" or "STEM.EXT.V.index". */
static bool parse_index(struct slice name, struct weight_name *out)
{
    struct slice rest, last, variant = {name.start, 0};
    if (!split_last_dot(name, &rest, &last))
        return false;
    if (!slice_is(last, "index")) {
        variant = last;
        name = rest;
        if (!split_last_dot(name, &rest, &last) || !slice_is(last, "index"))
            return false;
    }
    struct slice stem, extension, inner;
    if (!split_last_dot(rest, &stem, &extension))
        return false;
    if (variant.length == 0 && !is_weight_extension(extension) &&
        split_last_dot(stem, &rest, &inner) && is_weight_extension(inner)) {
        out->legacy = true;
        variant = extension;
        extension = inner;
        stem = rest;
    }
    out->kind = WEIGHT_NAME_INDEX;
    return copy_slice(out->stem, stem) && copy_slice(out->variant, variant) &&
           copy_slice(out->extension, extension);
}

bool weight_name_parse(const char *name, struct weight_name *out)
{
    struct slice whole = {name, strlen(name)}, body, extension, rest, variant;
    memset(out, 0, sizeof *out);
    if (whole.length >= WEIGHT_NAME_CAPACITY || !split_last_dot(whole, &body, &extension))
        return false;
    if (slice_is(extension, "json") && parse_index(body, out))
        return true;
    if (!copy_slice(out->extension, extension))
        return false;
    out->kind = WEIGHT_NAME_SHARD;
    if (split_number(body, &rest, &out->number, &out->total)) {
        take_rank(&rest, &out->rank);
        return set_stem_and_variant(rest, out);
    }
    if (split_last_dot(body, &rest, &variant) &&
        split_number(rest, &rest, &out->number, &out->total)) {
        out->legacy = true;
        return copy_slice(out->stem, rest) && copy_slice(out->variant, variant);
    }
    out->kind = WEIGHT_NAME_SINGLE;
    out->number = out->total = 0;
    return set_stem_and_variant(body, out);
}

const char *weight_name_base(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY])
{
    size_t stem = strlen(name->stem), variant = strlen(name->variant);
    memcpy(out, name->stem, stem + 1);
    if (variant > 0 && stem + 1 + variant < WEIGHT_NAME_CAPACITY) {
        out[stem] = '.';
        memcpy(out + stem + 1, name->variant, variant + 1);
    }
    return out;
}

static bool fits(int length)
{
    return length > 0 && length < WEIGHT_NAME_CAPACITY;
}

bool weight_name_merged(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY])
{
    return fits(snprintf(out, WEIGHT_NAME_CAPACITY, "%s%s%s.%s", name->stem,
                         name->variant[0] != '\0' ? "." : "", name->variant, name->extension));
}

bool weight_name_index(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY])
{
    return fits(snprintf(out, WEIGHT_NAME_CAPACITY, "%s.%s.index%s%s.json", name->stem,
                         name->extension, name->variant[0] != '\0' ? "." : "", name->variant));
}
