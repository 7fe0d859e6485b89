/* SPDX-License-Identifier: MIT
 *
 * Lines become the names of tensors, the first one the metadata "config" and a value of split=:
 * what is found are prefixes of names, each with a directory that the option would accept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree/split_option.h"

#define MAX_NAMES 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static bool is_prefix_of_some(const struct tensor_set *set, const struct component_prefix *item)
{
    for (size_t i = 0; i < set->tensor_count; i++)
        if (set->tensors[i].name_length >= item->length &&
            memcmp(set->tensors[i].name, item->prefix, item->length) == 0)
            return true;
    return false;
}

static void check(const struct tensor_set *set, const struct component_prefixes *found)
{
    require(found->count >= 2 && found->count <= COMPONENT_PREFIXES_MAX);
    for (size_t i = 0; i < found->count; i++) {
        const struct component_prefix *item = &found->items[i];
        char text[2 * COMPONENT_PREFIX_CAPACITY];
        struct split_option option;

        require(strlen(item->prefix) == item->length && item->prefix[item->length - 1] == '.');
        require(is_prefix_of_some(set, item));
        snprintf(text, sizeof text, "%s=%s", item->prefix, item->directory);
        require(split_option_parse(text, &option, NULL) == 0 && option.prefixes.count == 1);
        require(strcmp(option.prefixes.items[0].directory, item->directory) == 0);
        require(component_prefix_file(item->directory) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tensor tensors[MAX_NAMES];
    struct metadata_entry config = {.key = "config", .key_length = 6};
    struct tensor_set set = {.tensors = tensors, .metadata = &config, .metadata_count = 1};
    struct component_prefixes found;
    struct split_option option;
    char *text = malloc(size + 1), *line, *end;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\n';
    end = memchr(text, '\n', size + 1);
    config.value = text;
    config.value_length = (uint32_t)(end - text);
    for (line = end + 1; line <= text + size && set.tensor_count < MAX_NAMES; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + size + 1 - line));
        tensors[set.tensor_count++] =
            (struct tensor){.name = line, .name_length = (uint32_t)(end - line)};
    }
    if (component_prefixes_recognise(&set, 1, &found))
        check(&set, &found);
    *(char *)memchr(text, '\n', size + 1) = '\0';
    if (split_option_parse(text, &option, NULL) == 0 && option.mode == SPLIT_NAMED)
        require(option.prefixes.count > 0);
    free(text);
    return 0;
}
