/* SPDX-License-Identifier: MIT
 *
 * What the files of grouping share: which files of a directory are weights (weight_files.c), what a
 * component is made of (candidate.c), and who finds it: by an index (grouping_index.c), by numbers
 * in names (grouping_numbered.c), by a file that describes a set (grouping_described.c), or one
 * file by itself (grouping.c). One thread; functions that
 * return int give 0 or -ENOMEM.
 */
#ifndef TREE_GROUPING_H
#define TREE_GROUPING_H

#include "tree/discovery.h"

/* Further ones are not listed: an index, or the numbers in names, may ask for any number of files,
 * and there may be any number of indexes. */
#define MAX_ABSENT 1000U
#define MAX_ABSENT_IN_ALL 20000U

/* A file of one directory whose name is one of weights. Strings belong to the checkpoint. */
struct weight_file {
    uint32_t entry;
    enum weight_name_kind kind;
    bool legacy;
    uint32_t number, total, rank;
    const char *stem, *variant, *base, *extension, *merged_name, *index_name;
    const struct format *format;
    enum format_claim claim;
};

/* The weights of one format in a directory. */
struct directory_weights {
    struct weight_file *files; /* sorted: indexes, the new spelling first; shards of a set together
                                * and in their order; single files */
    uint32_t count;
    uint32_t looked_at;        /* candidates before this one are known not to make it a ... */
    bool is_model;             /* ... directory in which loaders look for files of certain names */
    struct string_map *merged; /* merged names of the directory's candidates -> their numbers */
    uint32_t noted;            /* candidates before this one are in `merged` */
};

/* The candidates of a directory that have an index: they come first, sorted by merged name. */
struct indexed_range {
    uint32_t first, end;
};

static inline struct scan_entry *entry_of(struct discovery *discovery, uint32_t entry)
{
    return &discovery->scan.entries[entry];
}

/* ---- weight_files.c */

/* Fills in out->files, which the caller frees, also after an error, and out->count. */
int weight_files_collect(struct discovery *discovery, uint32_t directory,
                         const struct format *format, struct directory_weights *out);

/* ---- candidate.c */

/* A candidate named as the file says, without members; NULL without memory. */
struct candidate *candidate_of_file(struct discovery *discovery, uint32_t directory,
                                    const struct weight_file *file);
/* Room for `count` members in place of those that it has. */
int candidate_reserve(struct discovery *discovery, struct candidate *candidate, size_t count);
/* Claims a scan entry for it. There must be room. */
void candidate_add_member(struct discovery *discovery, struct candidate *candidate, uint32_t entry);
/* It has not been found failed yet, or more absent shards of it will be listed. */
bool candidate_may_add_absent(const struct discovery *discovery, const struct candidate *candidate);
/* Makes it failed; the first error stays. */
void candidate_fail(struct candidate *candidate, const struct unshard_error *error);
/* Takes what a file says apart, into the candidate's index_arena. 0, -ENOMEM, or another negative
 * errno and *error. */
typedef int (*candidate_parse)(struct candidate *candidate, const struct scan_entry *entry,
                               const char *bytes, size_t length, struct unshard_error *error);
/* Has the file at a scan entry, of at most `limit` bytes, which is no directory, parsed. It may
 * name any number of files, so its bytes count with the headers meanwhile. 0, or a negative errno:
 * then the candidate has failed. */
int candidate_read(struct discovery *discovery, struct candidate *candidate, uint32_t number,
                   uint64_t limit, candidate_parse parse);
/* The merged name is a complete file on disk already: that one is the component. */
int candidate_use_complete_file(struct discovery *discovery, struct candidate *candidate,
                                uint32_t entry);
/* Settles what becomes of what stands under its merged name on disk (of pickles: added_views.c). */
int candidate_settle_merged_name(struct discovery *discovery, struct candidate *candidate);
/* For the message that the file called `name` in a directory is missing: "", or that its download
 * has not come to its end. */
const char *scan_unfinished(struct discovery *discovery, uint32_t directory, const char *name,
                            char *out, size_t capacity);
/* Notes an entry that is not to be shown once the candidate has a file of its own. */
int candidate_replaces(struct candidate *candidate, uint32_t entry);
/* "DIRECTORY/NAME", in malloc'd memory; NULL without memory. */
char *scan_path_in(const struct discovery *discovery, uint32_t directory, const char *name);

/* ---- grouping_index.c */

/* Makes candidates of all indexes among the weights. */
int grouping_find_indexes(struct discovery *discovery, uint32_t directory,
                          const struct directory_weights *weights, struct indexed_range *out);
/* That of a merged name, or NULL. */
struct candidate *grouping_indexed_candidate(struct discovery *discovery,
                                             struct indexed_range range, const char *merged_name);

/* ---- grouping_numbered.c */

/* Makes a candidate of shards of one merged name, sorted by total and number. */
int grouping_add_numbered(struct discovery *discovery, uint32_t directory,
                          const struct weight_file *files, uint32_t count);
/* Makes a candidate of what each rank of a distributed save wrote. */
int grouping_add_ranks(struct discovery *discovery, uint32_t directory,
                       const struct weight_file *files, uint32_t count);

/* ---- grouping_described.c */

/* Makes a candidate of the set of such a format in a directory, unless a file of the name that it
 * would have is there, or a candidate has it in weights->merged. */
int grouping_find_described(struct discovery *discovery, uint32_t directory,
                            const struct format *format, const struct directory_weights *weights);

#endif
