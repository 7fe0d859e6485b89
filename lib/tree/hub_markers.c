/* SPDX-License-Identifier: MIT
 *
 * Of a name that .no_exist/COMMIT has, huggingface_hub does not look into snapshots/COMMIT any more
 * (formats/README.md 4.1). Whoever asked for model.safetensors before, and was served shards, would
 * not find the merged file. */
#include "tree/hub_markers.h"

#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The directory of the snapshot that an entry lies in, or SCAN_NONE. */
static uint32_t snapshot_of(const struct scan *scan, uint32_t entry)
{
    for (; entry != 0; entry = scan->entries[entry].parent) {
        uint32_t parent = scan->entries[entry].parent;
        if (parent != 0 && strcmp(scan->entries[parent].name, "snapshots") == 0)
            return entry;
    }
    return SCAN_NONE;
}

/* The marker of a name in a directory of a snapshot: SCAN_NONE where there is none; -ENOMEM. */
static int find_marker(struct scan *scan, uint32_t snapshot, const struct added_file *added,
                       uint32_t *out)
{
    const struct scan_entry *commit = &scan->entries[snapshot];
    struct text path = {0};
    text_printf(&path, ".no_exist/%s%s/%s", commit->name,
                scan->entries[added->directory].path + strlen(commit->path), added->name);
    if (path.failed) {
        text_free(&path);
        return -ENOMEM;
    }
    *out = scan_find(scan, scan->entries[commit->parent].parent, path.data);
    text_free(&path);
    return 0;
}

/* The directory in focus has the markers. */
static void hide_by(struct scan *scan, const struct unshard_checkpoint *snapshot)
{
    for (uint32_t i = 0; i < snapshot->view_count; i++) {
        const char *path = snapshot->views[i].path, *slash = strrchr(path, '/');
        const char *name = slash != NULL ? slash + 1 : path;
        uint32_t marker = snapshot->views[i].added
                              ? scan_listed_child(scan, scan->focus, name, strlen(name))
                              : SCAN_NONE;
        if (marker != SCAN_NONE && scan->entries[marker].kind == SCAN_FILE)
            scan->entries[marker].hidden = true;
    }
}

int hub_markers_hide(struct discovery *discovery)
{
    struct scan *scan = &discovery->scan;
    if (scan->focus != SCAN_NONE) {
        if (discovery->context->snapshot != NULL)
            hide_by(scan, discovery->context->snapshot);
        return 0;
    }
    for (uint32_t i = 0; i < discovery->added_count; i++) {
        const struct added_file *added = &discovery->added[i];
        uint32_t snapshot = snapshot_of(scan, added->directory), marker = SCAN_NONE;
        if (snapshot == SCAN_NONE)
            continue;
        if (find_marker(scan, snapshot, added, &marker) != 0)
            return -ENOMEM;
        if (marker != SCAN_NONE && scan->entries[marker].kind == SCAN_FILE)
            scan->entries[marker].hidden = true;
    }
    return 0;
}
