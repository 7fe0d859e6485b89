/* SPDX-License-Identifier: MIT
 *
 * Headers of many shards, read by several threads at once: on slow storage what counts is how many
 * requests are under way. */
#ifndef TREE_HEADERS_H
#define TREE_HEADERS_H

#include "formats/format.h"
#include "tree/model.h"

/* What all headers together may take, with what their reading takes meanwhile: enough for a million
 * tensors. */
#define HEADERS_MEMORY ((size_t)256 << 20)

struct header {
    uint32_t file;               /* number of the source file; set by the caller */
    const struct format *format; /* set by the caller */
    /* Of a set that is described: what is said of it, and which of its files this is. NULL
     * otherwise, and when the description cannot be used; set by the caller. */
    const struct described_set *described;
    uint32_t member;
    bool alone;   /* nothing but its own file is shown for it, whatever its header says: when memory
                   * is short, others are read first, and it may be `skipped`; set by the caller */
    bool skipped; /* not looked at; the set is empty and has a note */
    const struct header *twin;   /* the first one of the same file under another name, or NULL */
    uint64_t size;               /* of the file; 0: as discovery saw it */
    struct arena arena;          /* owns the set */
    struct header_record record; /* of what was read */
    struct tensor_set set;
    uint64_t needed; /* bytes that the file must have for all of its tensors */
    int result;      /* 0 or a negative errno */
    bool
        truncated; /* result is an error, but the set is complete: the end of the data is missing */
    struct unshard_error error;
};

/* Fills in all of `headers`; a file that has several names is read once. Takes from the budget for
 * as long as they are there: what does not fit has the code "header-memory". Blocks on I/O; starts
 * and joins its own threads. The files array of the checkpoint must not change meanwhile, nor the
 * order of the headers afterwards. */
void headers_read(const struct unshard_checkpoint *checkpoint, struct header *headers,
                  uint32_t count, struct memory_budget *budget);
/* The error of what finds nothing left of HEADERS_MEMORY: a file, or the views of a component. */
int headers_no_memory_left(struct unshard_error *error, const char *what, int errno_value);
/* A fingerprint of all that a view can be made from: names, types, shapes and places of tensors,
 * and metadata; no content. */
XXH128_hash_t headers_layout(const struct format *format, const struct tensor_set *set);
/* Reads the header of a source file as it is on disk now, and tells whether it says what discovery
 * saw: the same tensors at the same places, and the same of them. Files without a header are always
 * the same.
 * Blocks on I/O. Thread-safe. */
bool headers_same_layout(const struct unshard_checkpoint *checkpoint, uint32_t file);
/* Frees their sets and the array. */
void headers_free(struct header *headers, uint32_t count);

#endif
