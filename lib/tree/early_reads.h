/* SPDX-License-Identifier: MIT
 *
 * Small files that discovery will want one after the other (indexes, what else describes a set),
 * read beforehand and several at once: on storage with latency a thousand components would take a
 * thousand times that. */
#ifndef TREE_EARLY_READS_H
#define TREE_EARLY_READS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct discovery;

struct early_read {
    uint32_t entry; /* scan entry */
    char *bytes;    /* NULL: not read, or taken */
    size_t length;
};

/* Zero-initialised is empty. */
struct early_reads {
    struct early_read *reads; /* by entry */
    uint32_t count;
};

/* Reads them, after the scan. What cannot be read, or is too much, is left to whoever wants it.
 * Blocks; starts and joins threads. */
void early_reads_make(struct discovery *discovery);
/* Moves what was read of an entry to the caller, who frees it. False: it was not read, or is longer
 * than `limit`. */
bool early_reads_take(struct early_reads *reads, uint32_t entry, uint64_t limit, char **out,
                      size_t *length);
void early_reads_free(struct early_reads *reads);

#endif
