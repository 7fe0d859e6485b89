/* SPDX-License-Identifier: MIT
 *
 * A directory that is laid out by itself is what it is in the checkpoint as a whole. */
#ifndef SUPPORT_LAYOUT_CHECK_H
#define SUPPORT_LAYOUT_CHECK_H

#include "tree/model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
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
    if (same && a->chunks != NULL)
        same = a->chunks->count == b->chunks->count &&
               a->chunks->algorithm == b->chunks->algorithm &&
               memcmp(a->chunks->digests, b->chunks->digests,
                      a->chunks->count * digest_size(a->chunks->algorithm)) == 0;
    for (uint32_t i = 0; same && i < a->digest_count; i++)
        same = digest_equal(&a->digests[i].digest, &b->digests[i].digest) &&
               same_text(a->digests[i].origin, b->digests[i].origin);
    return same;
}

/* Of a file with several names the message has the one it was read under. */
static inline bool same_error(const struct unshard_error *a, const struct unshard_error *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return strcmp(a->code, b->code) == 0 && a->errno_value == b->errno_value &&
           a->offset == b->offset;
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
           same_error(a->error, b->error);
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
            (one->failed && !same_error(&one->error, &other->error)) ||
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

/* What is told of the lists of digests is told once, where they are or the file would be. */
static inline const char *check_told(const struct unshard_checkpoint *whole, uint32_t problems,
                                     uint32_t missing, char *out)
{
    if (whole->problem_count == problems && whole->missing_count == missing)
        return NULL;
    snprintf(out, 1024, "%u problems and %u missing files, %u and %u in directories by themselves",
             whole->problem_count, whole->missing_count, problems, missing);
    return out;
}

/* The directory that is a node of the whole, laid out after the one above it. False with `out`. */
static inline bool check_layout(const struct unshard_checkpoint *whole, uint32_t node,
                                struct unshard_checkpoint **layouts, char *out)
{
    const struct unshard_checkpoint *above = node > 0 ? layouts[whole->nodes[node].parent] : NULL;
    char path[PATH_MAX];
    struct unshard_error error = {0};
    node_path(whole, node, path);
    if (strstr(path, ".no_exist") != NULL || is_made_up(whole, path))
        return true;
    struct layout_context context = {.above = above};
    if (checkpoint_lay_out(whole, &context, path, &layouts[node], &error) != 0) {
        snprintf(out, 1024, "\"%.300s\" by itself: %s", path, error.message);
        return false;
    }
    struct layout_pair pair = {.whole = whole, .layout = layouts[node]};
    bool same = same_children(&pair, node, 0) && same_components(&pair);
    if (same && components_in(whole, path) != components_in(layouts[node], path))
        same = layout_differs(&pair, "the number of components", path);
    if (!same)
        snprintf(out, 1024, "\"%.300s\" by itself: %s", path, pair.what);
    return same;
}

/* NULL: all directories are what they are in the whole; else what differs, in out (of 1,024 bytes).
 * The markers of a hub's cache are another matter. */
static inline const char *check_layouts(const struct unshard_checkpoint *whole, char *out)
{
    struct unshard_checkpoint **layouts = calloc(whole->node_count, sizeof *layouts);
    uint32_t problems = 0, missing = 0;
    bool same = layouts != NULL;
    snprintf(out, 1024, "out of memory");
    for (uint32_t i = 0; i < whole->node_count && same; i++) {
        if (whole->nodes[i].kind == UNSHARD_NODE_DIRECTORY)
            same = check_layout(whole, i, layouts, out);
        if (layouts[i] != NULL) {
            problems += layouts[i]->problem_count;
            missing += layouts[i]->missing_count;
        }
    }
    for (uint32_t i = 0; layouts != NULL && i < whole->node_count; i++)
        unshard_layout_release(layouts[i]);
    free(layouts);
    return same ? check_told(whole, problems, missing, out) : out;
}

#endif
