/* SPDX-License-Identifier: MIT */
#include "base/error.h"
#include "base/string_map.h"
#include "digest/digest_cache.h"
#include "digest/list_name.h"
#include "digest/manifest.h"
#include "tree/leftover_name.h"
#include "tree/path_policy.h"
#include "verify/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What each file is checked with, and the requests for those that are read. */
struct plan {
    const struct unshard_checkpoint *checkpoint;
    struct digest_cache *cache;
    struct hash_request *requests;
    uint32_t request_count;
    uint32_t *request_of; /* of each source file, or NO_REQUEST */
};

#define NO_REQUEST UINT32_MAX

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* Files that say what others hold are not expected to be told of themselves, and of what will be
 * gone nobody knows a digest. */
static bool is_reported(const struct source_file *file)
{
    return file->gathered == NULL && !path_policy_is_private(file->path) &&
           (file->expectation != NULL ||
            (digest_list_name(base_name(file->path)).kind == DIGEST_LIST_NOT_ONE &&
             !leftover_name(file->path)));
}

/* Chunk digests are worth keeping for shards whose content can be trusted when it matches. */
static bool is_worth_caching(const struct source_file *file)
{
    return file->component != NO_COMPONENT && file->size > 0 &&
           file->expectation->digest_count > 0 && file->expectation->chunks == NULL;
}

static void set_chunks(struct hash_request *request, uint64_t bytes,
                       enum digest_algorithm algorithm, const struct secret *secret)
{
    request->chunk_bytes = bytes;
    request->chunk_algorithm = algorithm;
    request->secret = secret;
}

static void plan_file(struct plan *plan, uint32_t number)
{
    const struct source_file *file = &plan->checkpoint->files[number];
    const struct expectation *expectation = file->expectation;
    plan->request_of[number] = NO_REQUEST;
    if (expectation == NULL || expectation->contradicts ||
        (expectation->has_size && expectation->size != file->size) ||
        (expectation->digest_count == 0 && expectation->chunks == NULL))
        return;
    struct hash_request *request = &plan->requests[plan->request_count];
    *request = (struct hash_request){.file = number};
    for (uint32_t i = 0; i < expectation->digest_count; i++)
        request->algorithms |= 1U << expectation->digests[i].digest.algorithm;
    if (expectation->chunks != NULL)
        set_chunks(request, expectation->chunks->chunk_bytes, expectation->chunks->algorithm, NULL);
    else if (plan->cache != NULL && is_worth_caching(file))
        set_chunks(request, MANIFEST_CHUNK_BYTES, DIGEST_KEYED, digest_cache_secret(plan->cache));
    plan->request_of[number] = plan->request_count++;
}

static struct digest_cache_key key_of(const struct source_file *file)
{
    return (struct digest_cache_key){.device = file->device,
                                     .inode = file->inode,
                                     .size = file->size,
                                     .mtime_ns = file->mtime_ns,
                                     .ctime_ns = file->ctime_ns,
                                     .whole = file->expectation->digests[0].digest};
}

/* A shard that matched gives chunk digests to the next mount; of one that did not, those of an
 * earlier time tell where it went bad. */
static int add_cached(struct plan *plan, struct report *report, const struct source_file *file,
                      const struct hash_request *request)
{
    const struct digest *whole = &file->expectation->digests[0].digest;
    struct digest_cache_key key = key_of(file);
    uint8_t *kept = NULL;
    uint64_t chunk_bytes = 0;
    uint32_t count = 0;
    if (request->result == 0 && digest_equal(whole, &request->digests[whole->algorithm])) {
        digest_cache_store(plan->cache, &key, request->chunk_bytes, request->chunks,
                           request->chunk_count, NULL);
    } else if (digest_cache_load(plan->cache, &key, &chunk_bytes, &kept, &count) == 0 &&
               chunk_bytes != request->chunk_bytes) {
        free(kept);
        kept = NULL;
    }
    int result = report_add_file(report, file, request, kept);
    free(kept);
    return result;
}

/* Files that lists name and that are not there, but for shards, which are told of already. */
static int add_missing(const struct unshard_checkpoint *checkpoint, struct report *report)
{
    struct string_map absent = {0};
    int result = 0;
    for (uint32_t i = 0; i < checkpoint->file_count && result == 0; i++) {
        const char *path = checkpoint->files[i].path;
        if (report_is_absent(&checkpoint->files[i]) &&
            string_map_add(&absent, path, strlen(path), i, NULL) < 0)
            result = -ENOMEM;
    }
    for (uint32_t i = 0; i < checkpoint->missing_count && result == 0; i++) {
        const struct missing_file *missing = &checkpoint->missing[i];
        uint32_t ignored;
        if (!string_map_find(&absent, missing->path, strlen(missing->path), &ignored))
            result = report_add_missing(report, missing);
    }
    string_map_free(&absent);
    return result;
}

static int make_report(struct plan *plan, struct report *report)
{
    const struct unshard_checkpoint *checkpoint = plan->checkpoint;
    int result = 0;
    for (uint32_t i = 0; i < checkpoint->file_count && result == 0; i++) {
        const struct source_file *file = &checkpoint->files[i];
        uint32_t number = plan->request_of[i];
        const struct hash_request *request = number == NO_REQUEST ? NULL : &plan->requests[number];
        if (!is_reported(file))
            continue;
        if (request != NULL && request->chunk_algorithm == DIGEST_KEYED)
            result = add_cached(plan, report, file, request);
        else
            result = report_add_file(report, file, request, NULL);
    }
    return result == 0 ? add_missing(checkpoint, report) : result;
}

static int verify(struct plan *plan, const struct unshard_fetch_options *options,
                  unshard_progress progress, void *context, struct report *report)
{
    for (uint32_t i = 0; i < plan->checkpoint->file_count; i++)
        plan_file(plan, i);
    int result = hash_files(plan->checkpoint, plan->requests, plan->request_count,
                            options != NULL ? options->jobs : 0, progress, context);
    return result == 0 ? make_report(plan, report) : result;
}

int unshard_verify(const struct unshard_checkpoint *checkpoint,
                   const struct unshard_fetch_options *options, unshard_progress progress,
                   void *context, struct unshard_report **out, struct unshard_error *error)
{
    size_t files = (size_t)checkpoint->file_count + 1;
    struct plan plan = {.checkpoint = checkpoint};
    struct report *report =
        report_create(checkpoint, checkpoint->file_count + checkpoint->missing_count);
    int result = -ENOMEM;
    *out = NULL;
    plan.requests = calloc(files, sizeof *plan.requests);
    plan.request_of = calloc(files, sizeof *plan.request_of);
    if (report != NULL && plan.requests != NULL && plan.request_of != NULL) {
        digest_cache_open(0, &plan.cache, NULL);
        result = verify(&plan, options, progress, context, report);
        digest_cache_close(plan.cache);
    }
    hash_requests_free(plan.requests, plan.request_count);
    free(plan.request_of);
    if (result == 0) {
        *out = &report->result;
        return 0;
    }
    if (report != NULL)
        unshard_report_free(&report->result);
    return error_set(error, "no-memory", -result, "cannot verify: %s", strerrordesc_np(-result));
}
