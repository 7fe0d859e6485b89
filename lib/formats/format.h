/* SPDX-License-Identifier: MIT
 *
 * What everybody else knows of a format of weights. Each has a folder of its own with a reader and
 * one `struct format`, which the table in format.c names; who works with files of any format goes
 * through that, and includes nothing of the folders. */
#ifndef FORMATS_FORMAT_H
#define FORMATS_FORMAT_H

#include "base/xxh3.h"
#include "formats/file_layout.h"
#include "formats/tensor_set.h"
#include "unshard.h"

/* What the name of a file says about it. */
enum format_claim {
    FORMAT_CLAIM_NONE,    /* not weights: shown as it is */
    FORMAT_CLAIM_WEIGHTS, /* weights: what cannot be read of it is an error */
    FORMAT_CLAIM_PERHAPS  /* weights if it can be read as such, else shown as it is */
};

/* What one file of a set says of all of them. Memory is the arena's that it was read into. */
struct described_set {
    const char **files; /* distinct, each a safe path relative to the directory of the set */
    uint32_t file_count;
    size_t left_out;    /* entries that are no tensors, and of which nothing is shown */
    const void *detail; /* for read_member */
};

/* How a format finds the files of a set where one of them names the others, whatever they are
 * called. */
struct set_description {
    const char *name;             /* of the file that does, in the directory of the set */
    uint64_t max_bytes;           /* it is not read when it has more */
    const char *member_extension; /* of the others, by which a set is known that it does not name */
    const char *shown_stem;       /* of the file that is shown for the set */
    const char *called, *unfinished; /* for messages: the set, and that it has no description */
    /* What the file at `path` says. Messages begin with `path`. 0, -ENOMEM, or another negative
     * errno and *error. Pure. */
    int (*parse)(const char *bytes, size_t length, const char *path, struct arena *arena,
                 struct described_set *out, struct unshard_error *error);
    /* What tensors, or parts of tensors, set->files[member] holds; contract of format.read. */
    int (*read_member)(const struct byte_reader *reader, const char *path,
                       const struct described_set *set, uint32_t member, struct arena *arena,
                       struct tensor_set *out, struct unshard_error *error);
};

struct format {
    const char *name;
    const char *const *extensions; /* without the dot, NULL-terminated; none where `described` */
    /* Not NULL: its files are found by one that describes them. NULL: by their names, by numbers in
     * them and by indexes, as it is with all formats of which each file can be read by itself. */
    const struct set_description *described;
    /* Reads and checks the header of the file behind `reader`, which has a bound of its own for its
     * length; what it takes of memory counts in the arena's budget, what it takes meanwhile in an
     * arena beside. Tensors come in data order with absolute offsets; everything in *out lives in
     * the arena. The error's message begins with `path` and names field and value. -ENOTSUP: the
     * file is well but not weights of this format. A file whose data ends too early is "truncated",
     * and *out may be filled all the same, so that the part that is there can be used; after any
     * other error *out is untouched. Whatever a download has left in the place of weights is told
     * as that (foreign_content.h). Blocks on the reader. NULL where `described`. */
    int (*read)(const struct byte_reader *reader, const char *path, struct arena *arena,
                struct tensor_set *out, struct unshard_error *error);
    /* Its files stay as they are, and what they hold is shown as a file of this format besides (see
     * tree/added_views.h); NULL: a file of its own format stands in the place of several. */
    const struct format *shown_as;
    /* What a stem says ("model" of "model.fp16.safetensors"), and the stem of the file that is
     * shown besides, at most capacity bytes with its terminator. NULL: all stems are weights and
     * kept. */
    enum format_claim (*claim)(const char *stem, const char *extension, char *shown_stem,
                               size_t capacity);
    /* Whether a file, of which `read` has made the set, says that it is one of several: such files
     * are no use one by one, and no index tells of them. NULL: files do not say. Pure. */
    bool (*is_shard)(const struct tensor_set *set);
    /* A file may be a whole pipeline, whose components are told by the prefixes of tensors' names:
     * see tree/splitting.c. */
    bool holds_components;
    /* Sets tensor.part where a file says that it holds a part of a tensor, of which others hold the
     * rest (see tensor_parts.h). The message begins with `path`. Codes: "malformed-parts",
     * "no-memory". NULL: files do not say. Pure. */
    int (*find_parts)(struct tensor_set *set, const char *path, struct arena *arena,
                      struct unshard_error *error);
    /* Feeds what set.detail says to a hash, so that a file which says something else is told from
     * this one. NULL: there is no detail. Pure. */
    void (*hash_detail)(const struct tensor_set *set, XXH3_state_t *state);
    /* Lays the tensors of several files out as one file of this format. Pure. The sets were made by
     * `read` of this format or of one that is shown as it, in the order of the files; no two
     * tensors have one name; `order` is for formats that leave a choice; `component` is for
     * messages. On success *out is to be freed with file_layout_free. Errors: the files are no set,
     * or memory. NULL where shown_as is another one. */
    int (*lay_out)(const struct tensor_set *sets, size_t set_count, enum unshard_order order,
                   const char *component, struct file_layout *out, struct unshard_error *error);
    /* Reads the header that lay_out has made, `length` bytes of a file of `size`, again: 0, or it
     * is none. NULL: it tells less of the tensors than the files that they come from. Pure. */
    int (*read_laid_out)(const char *header, size_t length, uint64_t size, const char *path,
                         struct arena *arena, struct tensor_set *out);
};

/* The format of the file that is shown for files of this one. */
static inline const struct format *format_shown(const struct format *format)
{
    return format->shown_as != NULL ? format->shown_as : format;
}

/* All formats. Where two of them would show files of the same name, the earlier one does. */
extern const struct format *const format_table[];
extern const size_t format_count;

/* The format whose files have this extension, or NULL. Exact, case-sensitive. Thread-safe. */
const struct format *format_of_extension(const char *extension);

/* Whether a file called so may describe a set of some format. Thread-safe. */
bool format_describes_set(const char *name);

/* The format called `name` (format.name), or NULL. Thread-safe. */
const struct format *format_of_name(const char *name);

#endif
