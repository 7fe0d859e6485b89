/* SPDX-License-Identifier: MIT
 *
 * A directory that is laid out by itself is what it is in the checkpoint as a whole. */
#ifndef SUPPORT_LAYOUT_CHECK_H
#define SUPPORT_LAYOUT_CHECK_H

#include "tree/model.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

struct layout_pair {
    const struct unshard_checkpoint *whole, *layout;
    char what[512]; /* that differs */
};

static inline bool layout_differs(struct layout_pair *pair, const char *word, const char *name)
{
    snprintf(pair->what, sizeof pair->what, "%s of %.400s", word, name);
    return false;
}

static inline bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Of a file that is a blob under another name elsewhere, the whole knows what is not seen here. */
static inline bool is_known_elsewhere(const struct expectation *a)
{
    return a->digest_count == 1 && strcmp(a->digests[0].origin, "hub cache blob name") == 0;
}

/* a: of the whole. */
static inline bool same_expectation(const struct expectation *a, const struct expectation *b)
{
    if (a == NULL || b == NULL)
        return a == b || (b == NULL && is_known_elsewhere(a));
    bool same = a->digest_count == b->digest_count && a->has_size == b->has_size &&
                a->size == b->size && a->contradicts == b->contradicts &&
                (a->chunks == NULL) == (b->chunks == NULL);
    for (uint32_t i = 0; same && i < a->digest_count; i++)
        same = digest_equal(&a->digests[i].digest, &b->digests[i].digest) &&
               same_text(a->digests[i].origin, b->digests[i].origin);
    return same;
}

/* Of the whole. What the file is a shard of lies above: where that is laid out it is known. */
static inline bool is_shard_of_above(const struct layout_pair *pair, const struct source_file *file)
{
    const char *slash = strrchr(file->path, '/');
    size_t length = slash != NULL ? (size_t)(slash - file->path) : 0;
    if (file->component == NO_COMPONENT)
        return false;
    const char *directory = pair->whole->components[file->component].directory;
    return strlen(directory) < length && strncmp(directory, file->path, strlen(directory)) == 0;
}

static inline bool same_source(const struct source_file *a, const struct source_file *b,
                               bool of_above)
{
    return same_text(a->path, b->path) && a->size == b->size && a->inode == b->inode &&
           a->failed == b->failed && (a->gathered == NULL) == (b->gathered == NULL) &&
           (of_above || (a->as_is == b->as_is &&
                         (a->component == NO_COMPONENT) == (b->component == NO_COMPONENT) &&
                         a->header_piece_count == b->header_piece_count)) &&
           (a->error == NULL || b->error == NULL
                ? a->error == b->error
                : strcmp(a->error->message, b->error->message) == 0);
}

static inline bool is_view_of_above(const struct layout_pair *pair, const struct view *view)
{
    return view->map.count == 1 && view->map.extents[0].source != EXTENT_LITERAL &&
           is_shard_of_above(pair, &pair->whole->files[view->map.extents[0].source]);
}

static inline bool same_view(struct layout_pair *pair, const struct view *a, const struct view *b)
{
    bool of_above = is_view_of_above(pair, a);
    if (!same_text(a->path, b->path) || a->size != b->size || a->map.count != b->map.count ||
        a->map.literal_size != b->map.literal_size ||
        (a->map.literal_size > 0 &&
         memcmp(a->map.literal, b->map.literal, a->map.literal_size) != 0) ||
        a->unreadable != b->unreadable || a->replaced != b->replaced ||
        a->unlisted != b->unlisted || (!of_above && a->prefetch != b->prefetch))
        return layout_differs(pair, "the view", a->path);
    for (size_t i = 0; i < a->map.count; i++) {
        const struct extent *one = &a->map.extents[i], *two = &b->map.extents[i];
        if (one->view_offset != two->view_offset || one->source_offset != two->source_offset ||
            (one->source == EXTENT_LITERAL) != (two->source == EXTENT_LITERAL))
            return layout_differs(pair, "an extent", a->path);
        if (one->source == EXTENT_LITERAL)
            continue;
        const struct source_file *from = &pair->whole->files[one->source];
        const struct source_file *to = &pair->layout->files[two->source];
        if (!same_source(from, to, of_above))
            return layout_differs(pair, "a source file", from->path);
        if (!same_expectation(from->expectation, to->expectation))
            return layout_differs(pair, "the digests", from->path);
    }
    return true;
}

static inline bool same_children(struct layout_pair *pair, uint32_t in_whole, uint32_t in_layout);

static inline bool same_node(struct layout_pair *pair, uint32_t in_whole, uint32_t in_layout)
{
    const struct unshard_node *a = &pair->whole->nodes[in_whole];
    const struct unshard_node *b = &pair->layout->nodes[in_layout];
    if (strcmp(a->name, b->name) != 0 || a->kind != b->kind || a->size != b->size ||
        a->inode != b->inode || a->mtime_ns != b->mtime_ns || a->mode != b->mode ||
        a->uid != b->uid || a->gid != b->gid || a->unlisted != b->unlisted ||
        !same_text(a->target, b->target))
        return layout_differs(pair, "the node", a->name);
    if (a->kind == UNSHARD_NODE_FILE)
        return same_view(pair, &pair->whole->views[a->view], &pair->layout->views[b->view]);
    return a->kind != UNSHARD_NODE_DIRECTORY || b->child_count == 0 ||
           same_children(pair, in_whole, in_layout); /* one of our making */
}

static inline bool same_children(struct layout_pair *pair, uint32_t in_whole, uint32_t in_layout)
{
    const struct unshard_node *a = &pair->whole->nodes[in_whole];
    const struct unshard_node *b = &pair->layout->nodes[in_layout];
    if (a->child_count != b->child_count)
        return layout_differs(pair, "the number of children", a->name);
    for (uint32_t i = 0; i < a->child_count; i++)
        if (!same_node(pair, a->first_child + i, b->first_child + i))
            return false;
    return true;
}

/* Those of the layout are those of its directory. */
static inline bool same_components(struct layout_pair *pair)
{
    for (uint32_t i = 0; i < pair->layout->component_count; i++) {
        const struct component *one = &pair->layout->components[i], *other = NULL;
        for (uint32_t k = 0; k < pair->whole->component_count && other == NULL; k++)
            if (strcmp(pair->whole->components[k].name, one->name) == 0)
                other = &pair->whole->components[k];
        if (other == NULL || one->failed != other->failed || one->bytes != other->bytes ||
            one->tensor_count != other->tensor_count || one->file_count != other->file_count ||
            strcmp(one->format, other->format) != 0 || one->note_count != other->note_count ||
            (one->failed && strcmp(one->error.message, other->error.message) != 0) ||
            !same_text(one->view_path, other->view_path))
            return layout_differs(pair, "the component", one->name);
    }
    return true;
}

static inline uint32_t components_in(const struct unshard_checkpoint *checkpoint,
                                     const char *directory)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        count += strcmp(checkpoint->components[i].directory, directory) == 0;
    return count;
}

static inline void node_path(const struct unshard_checkpoint *checkpoint, uint32_t node, char *out)
{
    if (node == 0) {
        out[0] = '\0';
        return;
    }
    node_path(checkpoint, checkpoint->nodes[node].parent, out);
    size_t length = strlen(out);
    snprintf(out + length, PATH_MAX - length, "%s%s", length > 0 ? "/" : "",
             checkpoint->nodes[node].name);
}

static inline bool is_made_up(const struct unshard_checkpoint *checkpoint, const char *path)
{
    struct stat status;
    return fstatat(checkpoint->source_fd, path[0] != '\0' ? path : ".", &status, 0) != 0;
}

/* The directory and those above it, from the source on: the last one's layout; NULL with *error. */
static inline struct unshard_checkpoint *lay_out_on_the_way(const struct unshard_checkpoint *whole,
                                                            const char *path,
                                                            struct unshard_error *error)
{
    struct unshard_checkpoint *above = NULL, *layout = NULL;
    for (size_t length = 0;; length++) {
        char part[PATH_MAX];
        if (length > 0)
            length += strcspn(path + length, "/");
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        struct layout_context context = {.above = above};
        int result = checkpoint_lay_out(whole, &context, part, &layout, error);
        unshard_layout_release(above);
        if (result != 0 || path[length] == '\0')
            return result == 0 ? layout : NULL;
        above = layout;
    }
}

/* NULL: all directories are what they are in the whole; else what differs, in out (of 1,024 bytes).
 * The markers of a hub's cache are another matter. */
static inline const char *check_layouts(const struct unshard_checkpoint *whole, char *out)
{
    for (uint32_t i = 0; i < whole->node_count; i++) {
        char path[PATH_MAX];
        struct unshard_error error = {0};
        if (whole->nodes[i].kind != UNSHARD_NODE_DIRECTORY)
            continue;
        node_path(whole, i, path);
        if (strstr(path, ".no_exist") != NULL || is_made_up(whole, path))
            continue;
        struct unshard_checkpoint *layout = lay_out_on_the_way(whole, path, &error);
        if (layout == NULL) {
            snprintf(out, 1024, "\"%.300s\" by itself: %s", path, error.message);
            return out;
        }
        struct layout_pair pair = {.whole = whole, .layout = layout};
        bool same = same_children(&pair, i, 0) && same_components(&pair);
        if (same && components_in(whole, path) != components_in(layout, path))
            same = layout_differs(&pair, "the number of components", path);
        unshard_layout_release(layout);
        if (!same) {
            snprintf(out, 1024, "\"%.300s\" by itself: %s", path, pair.what);
            return out;
        }
    }
    return NULL;
}

#endif
