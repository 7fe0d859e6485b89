/* SPDX-License-Identifier: MIT
 *
 * What an engine has been given of a tree that goes on changing: files, views and components of
 * layouts that come one after the other, under numbers of its own, which they keep for as long as
 * somebody needs them. It looks like a checkpoint, `all`, for whoever works with these numbers.
 *
 * What is the same (identity.h) as something that is there already is not taken a second time, and
 * keeps its number. A view comes with its component: with the other views of that, and its files.
 *
 *   adopt     numbers are given out and their entries filled in; nobody else knows of them yet
 *   commit    they are there: the counts of `all` include them
 *   cancel    they are not, and never were
 *   need      somebody needs the group (a component with its views, or a view of none)
 *   release   nobody needs the group: its numbers are free again, and those of its files as soon
 *             as nothing else has them and the owner is done with them
 *
 * Entries of numbers that are free are all zero, so that `path` is NULL. Each entry holds the
 * layout that its strings lie in.
 *
 * Not thread-safe; nothing blocks. Whoever has it sees to it that counts change under his lock, and
 * that numbers which are released are not used any more. */
#ifndef TREE_REGISTRY_H
#define TREE_REGISTRY_H

#include "base/number_list.h"
#include "tree/identity.h"
#include "tree/model.h"

/* So many files, views and components at one time, besides those that it begins with. */
#define REGISTRY_MOST (UINT32_C(1) << 20)

/* A number that is in use, by what it is known by. */
struct registry_entry {
    XXH128_hash_t key;
    struct unshard_checkpoint *layout; /* held; NULL: the number is free */
    uint32_t next;                     /* in the same bucket, and one; 0: none */
    uint32_t needed; /* of a file: views, gathered files and components that have it; of a view or
                      * component: how often registry_need was called */
    uint64_t age;    /* who came later has a larger one */
    void *own;       /* memory of the entry */
    bool hidden;     /* it is not found by its key */
    bool there;      /* of a component: it was committed */
};

/* Of one kind: files, views or components. */
struct registry_kind {
    struct registry_entry *entries; /* lazy */
    uint32_t *buckets, bucket_count;
    struct number_list unused; /* numbers below `end` that are free */
    uint32_t room, end;
    uint64_t last_age;
};

struct registry_leaving;

struct registry {
    struct unshard_checkpoint all;
    struct registry_kind files, views, components;
    const struct registry_leaving *leaving; /* during a release */
};

/* What an adoption has brought: new numbers, in ascending order of those in the layout. */
struct adoption {
    uint32_t view; /* of what was asked for, new or not */
    struct number_list files, views, components;
    struct number_list renamed; /* files that were there before, perhaps under another name, ... */
    struct number_list names;   /* ... and their numbers in the layout */
};

/* As the place: options, path and descriptor are its, which must outlive it. Nothing of its files.
 * 0 or -ENOMEM. */
int registry_init(struct registry *registry, const struct unshard_checkpoint *place);
/* Releases all layouts. */
void registry_free(struct registry *registry);

/* Takes everything of the checkpoint, with the numbers that it has there, though some of it may be
 * the same. The registry must be empty. The checkpoint must outlive it. 0 or -ENOMEM; either way
 * commit or cancel. */
int registry_adopt_all(struct registry *registry, const struct unshard_checkpoint *checkpoint,
                       struct adoption *adoption);
/* Takes a view of a layout of the place. 0, -ENOMEM, or -ENFILE: there are too many already; either
 * way commit or cancel. */
int registry_adopt(struct registry *registry, struct unshard_checkpoint *layout, uint32_t view,
                   struct adoption *adoption);
/* Neither needs memory. The adoption is empty afterwards but for `view` and names, which the caller
 * frees by adoption_forget_names. */
void registry_commit(struct registry *registry, struct adoption *adoption);
void registry_cancel(struct registry *registry, struct adoption *adoption);

void adoption_forget_names(struct adoption *adoption);

/* Components that there are: their numbers in ascending order, as many as `out` has room for. */
void registry_list_components(const struct registry *registry, struct number_list *out);
/* Of components, those in whose place no newer one is by its name: sets newest[number] and leaves
 * that of all others alone. 0 or -ENOMEM. */
int registry_find_newest(const struct registry *registry, const struct number_list *components,
                         bool *newest);

/* Somebody needs the group of a view. */
void registry_need(struct registry *registry, uint32_t view);
/* One need less; true: it was the last one. */
bool registry_need_less(struct registry *registry, uint32_t view);
bool registry_is_needed(const struct registry *registry, uint32_t view);
/* All views of the group of a view, itself among them. 0 or -ENOMEM. */
int registry_group(const struct registry *registry, uint32_t view, struct number_list *out);

/* Who hears of what leaves: layouts that were held, to be released by him when nobody reads their
 * strings any more; and files that nothing has any more. */
struct registry_leaving {
    void *context;
    void (*layout)(void *context, struct unshard_checkpoint *layout);
    void (*unneeded)(void *context, uint32_t file);
};
/* The views of a group, and their component, are gone: the numbers are free. */
void registry_release_group(struct registry *registry, const struct number_list *views,
                            const struct registry_leaving *leaving);
/* Nothing has the file. What is adopted may come to have it again, as long as it is there. */
bool registry_file_is_needed(const struct registry *registry, uint32_t file);
/* A file that nothing has is not found by what is adopted from now on: it will be released. */
void registry_hide_file(struct registry *registry, uint32_t file);
/* It is gone: its number is free. */
void registry_release_file(struct registry *registry, uint32_t file,
                           const struct registry_leaving *leaving);

#endif
