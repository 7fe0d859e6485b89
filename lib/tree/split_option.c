/* SPDX-License-Identifier: MIT */
#include "tree/split_option.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

static int refuse(struct unshard_error *error, const char *item, size_t length, const char *why)
{
    char quoted[160];
    return error_set(error, "bad-option", EINVAL, "split: \"%s\": %s",
                     error_quote(quoted, sizeof quoted, item, length), why);
}

static bool is_directory_name(const char *name, size_t length)
{
    if (length == 0 || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

static bool is_there(const struct component_prefixes *prefixes, const char *prefix)
{
    for (size_t i = 0; i < prefixes->count; i++)
        if (strcmp(prefixes->items[i].prefix, prefix) == 0)
            return true;
    return false;
}

static int add_item(struct component_prefixes *out, const char *item, size_t length,
                    struct unshard_error *error)
{
    const char *equals = memchr(item, '=', length);
    size_t prefix_length = equals != NULL ? (size_t)(equals - item) : length;
    struct component_prefix found = {0};
    if (prefix_length == 0 || (prefix_length == 1 && item[0] == '.'))
        return refuse(error, item, length, "a prefix of tensor names is needed");
    if (prefix_length + 2 > sizeof found.prefix || length - prefix_length > sizeof found.directory)
        return refuse(error, item, length, "too long");
    memcpy(found.prefix, item, prefix_length);
    if (found.prefix[prefix_length - 1] != '.')
        found.prefix[prefix_length++] = '.';
    found.length = prefix_length;
    if (equals != NULL)
        memcpy(found.directory, equals + 1, (size_t)(item + length - (equals + 1)));
    else
        component_prefix_directory(found.prefix, found.directory);
    if (!is_directory_name(found.directory, strlen(found.directory)))
        return refuse(error, item, length,
                      "the name of its directory must not be empty, hold a slash or begin with a "
                      "dot");
    if (is_there(out, found.prefix))
        return refuse(error, item, length, "this prefix is there already");
    if (out->count == COMPONENT_PREFIXES_MAX)
        return refuse(error, item, length, "too many prefixes");
    out->items[out->count++] = found;
    return 0;
}

int split_option_parse(const char *value, struct split_option *out, struct unshard_error *error)
{
    *out = (struct split_option){.mode = SPLIT_AUTO};
    if (value == NULL || strcmp(value, "auto") == 0)
        return 0;
    out->mode = strcmp(value, "off") == 0 ? SPLIT_OFF : SPLIT_NAMED;
    if (out->mode == SPLIT_OFF)
        return 0;
    for (const char *item = value; *item != '\0';) {
        size_t length = strcspn(item, ",:");
        int result = add_item(&out->prefixes, item, length, error);
        if (result != 0)
            return result;
        item += length;
        item += *item != '\0';
    }
    return out->prefixes.count > 0 ? 0 : refuse(error, value, strlen(value), "names no prefix");
}

int unshard_split_check(const char *value, struct unshard_error *error)
{
    struct split_option option;
    return split_option_parse(value, &option, error);
}
