/* SPDX-License-Identifier: MIT */
#include "tree/expectations.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Behind the way from a directory above the focus to it, if the name begins with that; or NULL. */
static const char *behind_way(const struct scan *scan, uint32_t directory, const char *name)
{
    size_t skip = directory == 0 ? 0 : strlen(scan->entries[directory].path) + 1;
    const char *way = scan->entries[scan->focus].path + skip;
    size_t length = strlen(way);
    return strncmp(name, way, length) == 0 && name[length] == '/' ? name + length + 1 : NULL;
}

bool gathering_is_below(const struct gathering *gathering, uint32_t directory, const char *name)
{
    const struct scan *scan = &gathering->discovery->scan;
    if (scan->focus == SCAN_NONE || directory > scan->focus)
        return false;
    if (directory < scan->focus)
        name = behind_way(scan, directory, name);
    return name != NULL && strchr(name, '/') != NULL;
}

enum gathering_place gathering_place_of(const struct gathering *gathering, uint32_t directory,
                                        const char *name)
{
    const struct scan *scan = &gathering->discovery->scan;
    if (scan->focus == SCAN_NONE)
        return PLACE_HERE;
    if (directory < scan->focus) {
        name = behind_way(scan, directory, name);
        directory = scan->focus;
    }
    for (const char *slash; name != NULL && (slash = strchr(name, '/')) != NULL; name = slash + 1) {
        directory = scan_listed_child(scan, directory, name, (size_t)(slash - name));
        if (directory == SCAN_NONE || scan->entries[directory].kind != SCAN_DIRECTORY)
            return PLACE_HERE; /* nothing is there, and nobody else would say so */
        if (!scan_is_near(scan, directory))
            return PLACE_ELSEWHERE;
    }
    return name == NULL                     ? PLACE_ELSEWHERE
           : scan_is_focus(scan, directory) ? PLACE_HERE
                                            : PLACE_NEAR;
}

uint32_t gathering_find_file(const struct gathering *gathering, uint32_t directory,
                             const char *name)
{
    struct scan *scan = &gathering->discovery->scan;
    uint32_t entry = scan_find(scan, directory, name);
    return entry == SCAN_NONE ? SCAN_NONE : scan->entries[entry].file;
}

const char *gathering_origin(const struct gathering *gathering, const char *path, uint32_t line)
{
    char text[320], quoted[256];
    error_quote(quoted, sizeof quoted, path, strlen(path));
    int length = line > 0 ? snprintf(text, sizeof text, "%s line %u", quoted, line)
                          : snprintf(text, sizeof text, "%s", quoted);
    return arena_copy_string(&gathering->discovery->checkpoint->arena, text, (size_t)length);
}

/* Every regular file that is laid out, also one that only a rewritten form is shown of, such as an
 * index. */
static void add_all_files(struct discovery *discovery)
{
    for (uint32_t i = 0; i < discovery->scan.count; i++)
        if (discovery->scan.entries[i].kind == SCAN_FILE &&
            scan_is_focus(&discovery->scan, discovery->scan.entries[i].parent))
            discovery_add_file(discovery, i);
}

static int take_missing(struct missing_list *missing, struct unshard_checkpoint *checkpoint)
{
    struct missing_file *copy = arena_alloc_array(&checkpoint->arena, missing->count, sizeof *copy);
    if (copy == NULL)
        return -ENOMEM;
    if (missing->count > 0)
        memcpy(copy, missing->items, missing->count * sizeof *copy);
    checkpoint->missing = copy;
    checkpoint->missing_count = missing->count;
    return 0;
}

int expectations_gather(struct discovery *discovery, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    struct gathering gathering = {.discovery = discovery};
    add_all_files(discovery);
    int result = expectations_from_hub(&gathering);
    if (result == 0)
        result = expectations_from_lists(&gathering);
    if (result == 0)
        result = claims_settle(&gathering.claims, checkpoint);
    if (result == 0)
        result = take_missing(&gathering.missing, checkpoint);
    if (result == 0)
        result = problems_take(&gathering.problems, &checkpoint->arena, &checkpoint->problems,
                               &checkpoint->problem_count);
    claims_free(&gathering.claims);
    problems_free(&gathering.problems);
    free(gathering.missing.items);
    return result == 0 ? 0 : error_no_memory(error);
}
