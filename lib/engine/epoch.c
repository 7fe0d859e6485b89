/* SPDX-License-Identifier: MIT */
#include "engine/epoch.h"

#include <stdlib.h>

struct file_epoch *epoch_new(uint32_t file, uint32_t number, const struct source_identity *identity,
                             const struct expected_digest *whole, const struct file_check *known)
{
    struct file_epoch *epoch = calloc(1, sizeof *epoch);
    if (epoch == NULL)
        return NULL;
    atomic_init(&epoch->references, 1);
    epoch->file = file;
    epoch->number = number;
    epoch->identity = *identity;
    epoch->whole = whole;
    epoch->known = *known;
    epoch->check = &epoch->known;
    return epoch;
}

struct file_epoch *epoch_hold(struct file_epoch *epoch)
{
    atomic_fetch_add_explicit(&epoch->references, 1, memory_order_relaxed);
    return epoch;
}

void epoch_release(struct file_epoch *epoch)
{
    if (epoch == NULL || atomic_fetch_sub_explicit(&epoch->references, 1, memory_order_acq_rel) > 1)
        return;
    free(epoch->gained);
    free(epoch);
}

void epoch_gain(struct file_epoch *epoch, struct gained *gained)
{
    epoch->gained = gained;
    epoch->check = &gained->check;
}

struct gained *gained_new(uint64_t chunk_bytes, uint32_t count, const void *digests,
                          const char *origin, bool by_pass)
{
    struct gained *gained = malloc(sizeof *gained + count * sizeof *gained->digests);
    if (gained == NULL)
        return NULL;
    gained->by_pass = by_pass;
    memcpy(gained->digests, digests, count * sizeof *gained->digests);
    gained->check = (struct file_check){
        CHECK_CHUNKS, {chunk_bytes, count, DIGEST_KEYED, gained->digests->bytes, origin}};
    return gained;
}
