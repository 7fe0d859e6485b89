/* SPDX-License-Identifier: MIT */
#include "base/error.h"
#include "digest/manifest.h"
#include "tree/leftover_name.h"
#include "tree/path_policy.h"
#include "verify/manifest_file.h"
#include "verify/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct seal {
    const struct unshard_checkpoint *checkpoint;
    struct report *report;
    struct hash_request *requests; /* of all files that are sealed */
    uint32_t count;
    bool check;
};

static void plan_files(struct seal *seal)
{
    const struct unshard_checkpoint *checkpoint = seal->checkpoint;
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct source_file *file = &checkpoint->files[i];
        if (file->gathered != NULL || report_is_absent(file) ||
            path_policy_is_private(file->path) || leftover_name(file->path) ||
            strcmp(file->path, MANIFEST_NAME) == 0)
            continue;
        struct hash_request *request = &seal->requests[seal->count++];
        *request = (struct hash_request){.file = i,
                                         .algorithms = 1U << DIGEST_SHA256,
                                         .chunk_bytes = MANIFEST_CHUNK_BYTES,
                                         .chunk_algorithm = DIGEST_SHA256};
        for (uint32_t k = 0; file->expectation != NULL && k < file->expectation->digest_count; k++)
            request->algorithms |= 1U << file->expectation->digests[k].digest.algorithm;
    }
}

/* ---- may it be sealed? -------------------------------------------------------------------------
 */

static const struct unshard_error *first_error(const struct unshard_report *report,
                                               enum unshard_verdict verdict)
{
    for (uint32_t i = 0; i < report->file_count; i++)
        if (report->files[i].verdict == verdict)
            return report->files[i].error;
    return NULL;
}

static int refuse(const struct unshard_error *first, uint32_t count, struct unshard_error *error)
{
    return error_set_at(error, "contradicts", EINVAL, first->offset,
                        "%.300s%s; nothing was written: correct it, or see --check-against",
                        first->message, count > 1 ? " (and more)" : "");
}

/* A file that could not be read is always one too many; what contradicts others only counts when it
 * was asked to. */
static int decide(const struct seal *seal, struct unshard_error *error)
{
    const struct unshard_report *report = &seal->report->result;
    for (uint32_t i = 0; i < seal->count; i++) {
        if (seal->requests[i].result == 0)
            continue;
        *error = seal->requests[i].error;
        return seal->requests[i].result;
    }
    if (!seal->check)
        return 0;
    uint32_t mismatched = report->counts[UNSHARD_MISMATCH];
    uint32_t contradicted = report->counts[UNSHARD_CONTRADICTED];
    if (mismatched > 0)
        return refuse(first_error(report, UNSHARD_MISMATCH), mismatched + contradicted, error);
    if (contradicted > 0)
        return refuse(first_error(report, UNSHARD_CONTRADICTED), contradicted, error);
    for (uint32_t i = 0; i < seal->checkpoint->component_count; i++)
        if (seal->checkpoint->components[i].failed)
            return refuse(&seal->checkpoint->components[i].error, 1, error);
    return 0;
}

/* What was hashed first may have changed while the last was. */
static int check_unchanged(const struct seal *seal, struct unshard_error *error)
{
    int result = 0;
    for (uint32_t i = 0; i < seal->count && result == 0; i++)
        result = hash_check_unchanged(seal->checkpoint, seal->requests[i].file, error);
    return result;
}

/* ---- the manifest ------------------------------------------------------------------------------
 */

static int compare_paths(const void *left, const void *right)
{
    return strcmp(((const struct manifest_file *)left)->path,
                  ((const struct manifest_file *)right)->path);
}

static int write_manifest(const struct seal *seal, struct unshard_error *error)
{
    const struct unshard_checkpoint *checkpoint = seal->checkpoint;
    struct text text = {0};
    struct manifest_file *files = calloc((size_t)seal->count + 1, sizeof *files);
    if (files == NULL)
        return error_no_memory(error);
    for (uint32_t i = 0; i < seal->count; i++) {
        const struct hash_request *request = &seal->requests[i];
        files[i] = (struct manifest_file){.path = checkpoint->files[request->file].path,
                                          .size = checkpoint->files[request->file].size,
                                          .sha256 = request->digests[DIGEST_SHA256],
                                          .chunks = request->chunks,
                                          .chunk_count = request->chunk_count};
    }
    qsort(files, seal->count, sizeof *files, compare_paths);
    struct manifest manifest = {.chunk_bytes = MANIFEST_CHUNK_BYTES,
                                .chunk_algorithm = DIGEST_SHA256,
                                .files = files,
                                .file_count = seal->count};
    int result = manifest_write(&manifest, &text, error);
    if (result == 0)
        result = manifest_file_write(checkpoint->source_fd, checkpoint->source, &text, error);
    text_free(&text);
    free(files);
    return result;
}

static int name_manifest(struct seal *seal, struct unshard_error *error)
{
    const char *source = seal->checkpoint->source;
    size_t length = strlen(source);
    char *path = arena_alloc(&seal->report->arena, length + sizeof "/" MANIFEST_NAME);
    if (path == NULL)
        return error_no_memory(error);
    memcpy(path, source, length);
    memcpy(path + length, "/" MANIFEST_NAME, sizeof "/" MANIFEST_NAME);
    seal->report->result.manifest = path;
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int run(struct seal *seal, const struct unshard_fetch_options *options,
               unshard_progress progress, void *context, struct unshard_error *error)
{
    const struct unshard_checkpoint *checkpoint = seal->checkpoint;
    plan_files(seal);
    if (seal->count == 0)
        return error_set(error, "nothing-to-seal", ENOENT, "%s: there are no files to seal",
                         checkpoint->source);
    int result = hash_files(checkpoint, seal->requests, seal->count,
                            options != NULL ? options->jobs : 0, progress, context);
    if (result != 0)
        return error_set(error, "no-memory", -result, "cannot seal: %s", strerrordesc_np(-result));
    for (uint32_t i = 0; i < seal->count; i++)
        if (report_add_file(seal->report, &checkpoint->files[seal->requests[i].file],
                            &seal->requests[i], NULL) != 0)
            return error_no_memory(error);
    result = decide(seal, error);
    if (result == 0)
        result = check_unchanged(seal, error);
    if (result == 0)
        result = write_manifest(seal, error);
    return result == 0 ? name_manifest(seal, error) : result;
}

int unshard_seal(const struct unshard_checkpoint *checkpoint,
                 const struct unshard_fetch_options *options, bool check, unshard_progress progress,
                 void *context, struct unshard_report **out, struct unshard_error *error)
{
    struct seal seal = {.checkpoint = checkpoint, .check = check};
    struct unshard_error local = {0};
    *out = NULL;
    seal.report = report_create(checkpoint, checkpoint->file_count);
    seal.requests = calloc((size_t)checkpoint->file_count + 1, sizeof *seal.requests);
    int result = seal.report == NULL || seal.requests == NULL
                     ? error_no_memory(&local)
                     : run(&seal, options, progress, context, &local);
    hash_requests_free(seal.requests, seal.count);
    if (seal.report != NULL)
        *out = &seal.report->result;
    if (result != 0 && error != NULL)
        *error = local;
    return result;
}
