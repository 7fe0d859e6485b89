/* SPDX-License-Identifier: MIT */
#include "tree/claims.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int claim_add(struct claim_list *claims, const struct claim *claim)
{
    if (claims->count == claims->capacity) {
        size_t capacity = claims->capacity == 0 ? 64 : claims->capacity * 2;
        struct claim *grown = reallocarray(claims->items, capacity, sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        claims->items = grown;
        claims->capacity = capacity;
    }
    claims->items[claims->count++] = *claim;
    return 0;
}

void claims_free(struct claim_list *claims)
{
    free(claims->items);
    *claims = (struct claim_list){0};
}

/* One name of a file on disk. */
struct file_name {
    uint64_t device, inode;
    uint32_t file;
    size_t claim; /* of the rank at hand, or SIZE_MAX */
};

/* Names of one file stand together, those with a claim first. */
static int compare_names(const void *left, const void *right)
{
    const struct file_name *a = left, *b = right;
    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    if (a->inode != b->inode)
        return a->inode < b->inode ? -1 : 1;
    return (a->claim > b->claim) - (a->claim < b->claim);
}

static int share_sorted(struct claim_list *claims, const struct file_name *names, uint32_t count)
{
    size_t known = SIZE_MAX;
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || names[i].device != names[i - 1].device ||
            names[i].inode != names[i - 1].inode)
            known = names[i].claim;
        if (known == SIZE_MAX || names[i].claim != SIZE_MAX)
            continue;
        struct claim claim = claims->items[known];
        claim.file = names[i].file;
        if (claim_add(claims, &claim) != 0)
            return -ENOMEM;
    }
    return 0;
}

int claims_share(struct claim_list *claims, enum claim_rank rank,
                 const struct unshard_checkpoint *checkpoint)
{
    uint32_t count = checkpoint->file_count, named = 0;
    struct file_name *names = calloc((size_t)count + 1, sizeof *names);
    bool any = false;
    if (names == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        names[i] = (struct file_name){checkpoint->files[i].device, checkpoint->files[i].inode, i,
                                      SIZE_MAX};
    for (size_t i = 0; i < claims->count; i++)
        if (claims->items[i].rank == rank) {
            names[claims->items[i].file].claim = i;
            any = true;
        }
    for (uint32_t i = 0; i < count; i++) /* gathered and absent ones are no names of a file */
        if (names[i].inode != 0)
            names[named++] = names[i];
    if (any)
        qsort(names, named, sizeof *names, compare_names);
    int result = any ? share_sorted(claims, names, named) : 0;
    free(names);
    return result;
}

/* By file; what holds against somebody who made the file up first, then by rank, then the order of
 * enum digest_algorithm, which goes from strong to weak. The origin makes the order total. */
static int compare_claims(const void *left, const void *right)
{
    const struct claim *a = left, *b = right;
    bool a_strong = digest_is_cryptographic(a->digest.algorithm);
    bool b_strong = digest_is_cryptographic(b->digest.algorithm);
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    if (a_strong != b_strong)
        return a_strong ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->digest.algorithm != b->digest.algorithm)
        return a->digest.algorithm < b->digest.algorithm ? -1 : 1;
    return strcmp(a->origin, b->origin);
}

static void contradict_digest(struct expectation *expectation, const char *path,
                              const struct expected_digest *a, const struct claim *b)
{
    char one[DIGEST_MAX_HEX], two[DIGEST_MAX_HEX];
    expectation->contradicts = true;
    error_set(&expectation->error, "contradicting-digests", 0,
              "%.120s: %.80s says %s %.16s..., %.80s says %.16s...: remove or correct one of them",
              path, a->origin, digest_algorithm_name(a->digest.algorithm),
              digest_to_hex(&a->digest, one), b->origin, digest_to_hex(&b->digest, two));
}

static void add_digest(struct expectation *expectation, const char *path, const struct claim *claim)
{
    for (uint32_t i = 0; i < expectation->digest_count; i++) {
        const struct expected_digest *known = &expectation->digests[i];
        if (known->digest.algorithm != claim->digest.algorithm)
            continue;
        if (!digest_equal(&known->digest, &claim->digest) && !expectation->contradicts)
            contradict_digest(expectation, path, known, claim);
        return;
    }
    expectation->digests[expectation->digest_count++] =
        (struct expected_digest){.digest = claim->digest, .origin = claim->origin};
}

static void add_size(struct expectation *expectation, const char *path, const struct claim *claim)
{
    if (!expectation->has_size) {
        expectation->has_size = true;
        expectation->size = claim->size;
        expectation->size_origin = claim->origin;
    } else if (expectation->size != claim->size && !expectation->contradicts) {
        expectation->contradicts = true;
        error_set(&expectation->error, "contradicting-digests", 0,
                  "%.120s: %.80s says %llu bytes, %.80s says %llu: remove or correct one of them",
                  path, expectation->size_origin, (unsigned long long)expectation->size,
                  claim->origin, (unsigned long long)claim->size);
    }
}

/* The number of digests to keep: one for each algorithm. */
static uint32_t count_algorithms(const struct claim *claims, size_t count)
{
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++)
        if (claims[i].digest.algorithm != DIGEST_NONE)
            seen |= 1U << claims[i].digest.algorithm;
    return (uint32_t)__builtin_popcount(seen);
}

static int settle_file(struct unshard_checkpoint *checkpoint, const struct claim *claims,
                       size_t count)
{
    struct source_file *file = &checkpoint->files[claims->file];
    struct expectation *expectation = arena_alloc(&checkpoint->arena, sizeof *expectation);
    if (expectation == NULL)
        return -ENOMEM;
    expectation->digests = arena_alloc_array(&checkpoint->arena, count_algorithms(claims, count),
                                             sizeof *expectation->digests);
    if (expectation->digests == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (claims[i].digest.algorithm != DIGEST_NONE)
            add_digest(expectation, file->path, &claims[i]);
        if (claims[i].has_size)
            add_size(expectation, file->path, &claims[i]);
        if (claims[i].chunks != NULL && expectation->chunks == NULL)
            expectation->chunks = claims[i].chunks;
    }
    for (size_t i = 0; i < count; i++)
        if (claims[i].chunks != expectation->chunks &&
            digest_is_cryptographic(claims[i].digest.algorithm))
            expectation->whole_elsewhere = true;
    file->expectation = expectation;
    return 0;
}

int claims_settle(struct claim_list *claims, struct unshard_checkpoint *checkpoint)
{
    if (claims->count > 0)
        qsort(claims->items, claims->count, sizeof *claims->items, compare_claims);
    for (size_t first = 0, next; first < claims->count; first = next) {
        next = first + 1;
        while (next < claims->count && claims->items[next].file == claims->items[first].file)
            next++;
        if (settle_file(checkpoint, &claims->items[first], next - first) != 0)
            return -ENOMEM;
    }
    return 0;
}
