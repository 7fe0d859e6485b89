/* SPDX-License-Identifier: MIT
 *
 * The order in which a pipeline loads its components: that of the keys in model_index.json. */
#include "tree/discovery.h"

#include "base/error.h"
#include "tree/loader_names.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_INDEX_MAX_BYTES (UINT64_C(1) << 20)
#define NOT_LISTED 1000000U
#define MOST_ORDERED 1000U

/* The whole text is one JSON object. */
static cJSON *parse_object(const char *json, size_t length)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(json, length, &end, false);
    if (root == NULL)
        return NULL;
    while (end < json + length && strchr(" \t\r\n", *end) != NULL && *end != '\0')
        end++;
    if (end == json + length && cJSON_IsObject(root))
        return root;
    cJSON_Delete(root);
    return NULL;
}

/* One of a directory that is not laid out now is told of when that is. */
static bool is_told_of(const struct discovery *discovery, uint32_t directory)
{
    return scan_is_focus(&discovery->scan, directory);
}

static cJSON *read_model_index(struct discovery *discovery, uint32_t directory)
{
    static const char name[] = LOADER_MODEL_INDEX;
    char *json = NULL, reason[64];
    size_t length = 0;
    uint32_t entry = scan_child(&discovery->scan, directory, name, sizeof name - 1);
    if (entry == SCAN_NONE || discovery->scan.entries[entry].kind != SCAN_FILE)
        return NULL;
    int result = discovery_read_file(discovery, entry, MODEL_INDEX_MAX_BYTES, &json, &length);
    cJSON *root = result == 0 ? parse_object(json, length) : NULL;
    free(json);
    if (root == NULL && is_told_of(discovery, directory))
        note_add(&discovery->notes, &discovery->checkpoint->arena,
                 "%s: %s; components are taken in order of their names.",
                 discovery->scan.entries[entry].path,
                 result == 0 ? "no JSON object"
                             : discovery_why_unread(result, MODEL_INDEX_MAX_BYTES, reason));
    return root;
}

/* A component is a list of library and class; null for both when the pipeline goes without. */
static bool is_component(const cJSON *item)
{
    return item->string != NULL && item->string[0] != '_' && cJSON_IsArray(item) &&
           cJSON_GetArraySize(item) == 2;
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && strpbrk(name, "/\\") == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* The directory of that name in `above`, or one below it. */
static bool lies_in(const struct scan *scan, uint32_t directory, uint32_t above, const char *name)
{
    const char *path = scan->entries[directory].path, *top = scan->entries[above].path;
    size_t skip = above == 0 ? 0 : strlen(top) + 1, length = strlen(name);
    if (strlen(path) < skip || (skip > 0 && strncmp(path, top, skip - 1) != 0) ||
        (skip > 0 && path[skip - 1] != '/'))
        return false;
    path += skip;
    return strncmp(path, name, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static void set_order(struct discovery *discovery, uint32_t above, const char *name, unsigned order)
{
    for (uint32_t i = 0; i < discovery->candidate_count; i++) {
        struct candidate *candidate = discovery->candidates[i];
        if (candidate->load_order == NOT_LISTED &&
            lies_in(&discovery->scan, candidate->directory, above, name))
            candidate->load_order = order;
    }
}

static void apply_model_index(struct discovery *discovery, uint32_t directory, const cJSON *root)
{
    unsigned order = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, root)
    {
        if (!is_component(item))
            continue;
        if (!is_plain_name(item->string) && is_told_of(discovery, directory)) {
            char quoted[128];
            note_add(&discovery->notes, &discovery->checkpoint->arena,
                     "model_index.json: \"%s\" is no name of a component and is ignored.",
                     error_quote(quoted, sizeof quoted, item->string, strlen(item->string)));
        } else if (is_plain_name(item->string) && order < MOST_ORDERED) {
            set_order(discovery, directory, item->string, order++);
        }
    }
}

/* For those who look at the directories one by one. */
static int keep_order(struct discovery *discovery, const cJSON *root)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    const cJSON *item;
    int items = cJSON_GetArraySize(root);
    size_t most = items < (int)MOST_ORDERED ? (size_t)items : MOST_ORDERED;
    checkpoint->load_order =
        arena_alloc_array(&checkpoint->arena, most, sizeof *checkpoint->load_order);
    if (checkpoint->load_order == NULL)
        return -ENOMEM;
    cJSON_ArrayForEach(item, root)
    {
        if (!is_component(item) || !is_plain_name(item->string) ||
            checkpoint->load_order_count == most)
            continue;
        const char *name =
            arena_copy_string(&checkpoint->arena, item->string, strlen(item->string));
        if (name == NULL)
            return -ENOMEM;
        checkpoint->load_order[checkpoint->load_order_count++] = name;
    }
    return 0;
}

static int use_model_index(struct discovery *discovery, uint32_t directory)
{
    cJSON *root = read_model_index(discovery, directory);
    int result = 0;
    if (root != NULL)
        apply_model_index(discovery, directory, root);
    if (root != NULL && directory == discovery->scan.focus)
        result = keep_order(discovery, root);
    cJSON_Delete(root);
    return result;
}

static int compare_candidates(const void *left, const void *right, void *context)
{
    const struct candidate *a = *(struct candidate *const *)left;
    const struct candidate *b = *(struct candidate *const *)right;
    const struct scan *scan = context;
    if (a->load_order != b->load_order)
        return a->load_order < b->load_order ? -1 : 1;
    int order = strcmp(scan->entries[a->directory].path, scan->entries[b->directory].path);
    return order != 0 ? order : strcmp(a->merged_name, b->merged_name);
}

int load_order_apply(struct discovery *discovery, struct unshard_error *error)
{
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        discovery->candidates[i]->load_order = NOT_LISTED;
    uint32_t focus = discovery->scan.focus == SCAN_NONE ? 0 : discovery->scan.focus;
    int result = use_model_index(discovery, focus);
    if (result == 0 && focus != 0)
        result = use_model_index(discovery, discovery->scan.entries[focus].parent);
    if (discovery->candidate_count > 0)
        qsort_r(discovery->candidates, discovery->candidate_count, sizeof *discovery->candidates,
                compare_candidates, &discovery->scan);
    return result != 0 || discovery->notes.failed ? error_no_memory(error) : 0;
}
