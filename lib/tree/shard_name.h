/* SPDX-License-Identifier: MIT
 *
 * File names of weights, as loaders spell them (formats/README.md 2.1):
 *   STEM[.VARIANT].EXT                     a single file
 *   STEM[.VARIANT]-NNNNN-of-MMMMM.EXT      a shard; also with '_' before the number
 *   STEM-NNNNN-of-MMMMM.VARIANT.EXT        a shard, legacy spelling of diffusers
 *   shard-RRRRR-STEM-NNNNN-of-MMMMM.EXT    a shard of rank R (HuggingFaceStorageWriter)
 *   STEM.EXT.index[.VARIANT].json          an index
 *   STEM.EXT.VARIANT.index.json            an index, legacy spelling of diffusers
 * Pure functions on untrusted names. */
#ifndef TREE_SHARD_NAME_H
#define TREE_SHARD_NAME_H

#include <stdbool.h>
#include <stdint.h>

#define WEIGHT_NAME_CAPACITY 256 /* of every string below, with its terminator */

enum weight_name_kind { WEIGHT_NAME_SINGLE, WEIGHT_NAME_SHARD, WEIGHT_NAME_INDEX };

struct weight_name {
    enum weight_name_kind kind;
    bool legacy;                        /* a legacy spelling of the variant */
    uint32_t number, total;             /* of a shard; as spelled, not checked against each other */
    uint32_t rank;                      /* of a shard: from 1; 0: not of one rank */
    char stem[WEIGHT_NAME_CAPACITY];    /* never empty */
    char variant[WEIGHT_NAME_CAPACITY]; /* "" without one */
    char extension[WEIGHT_NAME_CAPACITY]; /* without the dot */
};

/* Takes a file name apart. False for a name that is none of the above or longer than a file name
 * can be. Any extension is taken: whether it is one of weights is the caller's to know. A stem that
 * holds dots gives its last part as the variant, so compare weight_name_base, not the stem. */
bool weight_name_parse(const char *name, struct weight_name *out);

/* "STEM" or "STEM.VARIANT": equal for all files of one set. Returns out. */
const char *weight_name_base(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY]);
/* "STEM[.VARIANT].EXT", the name of the single file. False when it would be too long. */
bool weight_name_merged(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY]);
/* "STEM.EXT.index[.VARIANT].json", the new spelling. False when it would be too long. */
bool weight_name_index(const struct weight_name *name, char out[WEIGHT_NAME_CAPACITY]);

#endif
