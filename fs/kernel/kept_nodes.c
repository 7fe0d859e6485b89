/* SPDX-License-Identifier: MIT */
#include "fs/kernel/kept_nodes.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <xxhash.h>

struct kept_node {
    uint64_t check; /* of what follows up to the end, but for what changes */
    _Atomic uint32_t buffered, direct, attached;
    uint32_t kind;
    uint64_t id, number, size;
    unsigned char identity[KEPT_IDENTITY_SIZE];
    uint32_t path_length, target_length;
    char text[]; /* path and target, each with its NUL */
};

#define HANDLES_MOST 1000000u

static uint64_t check_of(const struct kept_node *kept)
{
    const char *from = (const char *)&kept->kind;
    size_t text = (size_t)kept->path_length + kept->target_length + 2;
    return XXH3_64bits(from, (size_t)(kept->text - from) + text);
}

struct kept_node *kept_node_new(struct unshard_keep *keep, const struct kept_node_facts *facts)
{
    size_t path = strlen(facts->path), target = facts->target ? strlen(facts->target) : 0;
    struct kept_node *kept =
        unshard_keep_add(keep, UNSHARD_KEEP_NODE, sizeof *kept + path + target + 2);
    if (!kept)
        return NULL;
    kept->kind = facts->kind;
    kept->id = facts->id;
    kept->number = facts->number;
    kept->size = facts->size;
    memcpy(kept->identity, facts->identity, sizeof kept->identity);
    kept->path_length = (uint32_t)path;
    kept->target_length = (uint32_t)target;
    memcpy(kept->text, facts->path, path);
    if (target > 0)
        memcpy(kept->text + path + 1, facts->target, target);
    kept->check = check_of(kept);
    kept_node_handles(kept, facts->buffered, facts->direct);
    kept_node_attached(kept, facts->attached);
    unshard_keep_commit(kept);
    return kept;
}

void kept_node_handles(struct kept_node *kept, unsigned buffered, unsigned direct)
{
    if (!kept)
        return;
    atomic_store_explicit(&kept->buffered, buffered, memory_order_relaxed);
    atomic_store_explicit(&kept->direct, direct, memory_order_relaxed);
}

void kept_node_attached(struct kept_node *kept, bool attached)
{
    if (kept)
        atomic_store_explicit(&kept->attached, attached, memory_order_relaxed);
}

static unsigned handles(uint32_t count)
{
    return count < HANDLES_MOST ? count : 0;
}

bool kept_node_read(const void *record, size_t bytes, struct kept_node_facts *out)
{
    const struct kept_node *kept = record;
    if (bytes < sizeof *kept || kept->path_length > bytes || kept->target_length > bytes ||
        (size_t)kept->path_length + kept->target_length + 2 > bytes - sizeof *kept ||
        kept->check != check_of(kept))
        return false;
    *out = (struct kept_node_facts){.id = kept->id,
                                    .number = kept->number,
                                    .size = kept->size,
                                    .kind = (enum unshard_node_kind)kept->kind,
                                    .path = kept->text,
                                    .buffered = handles(kept->buffered),
                                    .direct = handles(kept->direct),
                                    .attached = kept->attached != 0};
    memcpy(out->identity, kept->identity, sizeof out->identity);
    if (out->kind == UNSHARD_NODE_SYMLINK)
        out->target = kept->text + kept->path_length + 1;
    return true;
}

static int note(void *context, void *record, size_t bytes)
{
    uint64_t **out = context;
    if (bytes >= sizeof **out)
        *out = record;
    return *out != NULL;
}

uint64_t *kept_node_last_id(struct unshard_keep *keep)
{
    uint64_t *last = NULL;
    if (!keep || unshard_keep_each(keep, UNSHARD_KEEP_NODE_IDS, note, &last))
        return last;
    last = unshard_keep_add(keep, UNSHARD_KEEP_NODE_IDS, sizeof *last);
    if (last)
        unshard_keep_commit(last);
    return last;
}
