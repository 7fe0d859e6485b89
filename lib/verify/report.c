/* SPDX-License-Identifier: MIT */
#include "verify/report.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the report --------------------------------------------------------------------------------
 */

/* Problems of the checkpoint, then what is wrong with the structure of its components. */
static bool add_problems(struct report *report, const struct unshard_checkpoint *checkpoint)
{
    size_t most = (size_t)checkpoint->problem_count + checkpoint->component_count;
    struct unshard_error *problems = arena_alloc_array(&report->arena, most, sizeof *problems);
    uint32_t count = checkpoint->problem_count;
    if (problems == NULL)
        return false;
    if (count > 0)
        memcpy(problems, checkpoint->problems, count * sizeof *problems);
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        if (checkpoint->components[i].failed)
            problems[count++] = checkpoint->components[i].error;
    report->result.problems = problems;
    report->result.problem_count = count;
    return true;
}

struct report *report_create(const struct unshard_checkpoint *checkpoint, uint32_t files)
{
    struct report *report = calloc(1, sizeof *report);
    if (report == NULL)
        return NULL;
    report->result.source =
        arena_copy_string(&report->arena, checkpoint->source, strlen(checkpoint->source));
    report->result.files = arena_alloc_array(&report->arena, files, sizeof *report->result.files);
    if (report->result.source != NULL && report->result.files != NULL &&
        add_problems(report, checkpoint))
        return report;
    unshard_report_free(&report->result);
    return NULL;
}

void unshard_report_free(struct unshard_report *result)
{
    if (result == NULL)
        return;
    struct report *report = (struct report *)result;
    arena_free(&report->arena);
    free(report);
}

enum unshard_outcome unshard_report_outcome(const struct unshard_report *report)
{
    uint32_t good = report->counts[UNSHARD_VERIFIED];
    if (good + report->counts[UNSHARD_UNVERIFIED] != report->file_count ||
        report->problem_count > 0)
        return UNSHARD_SOME_BAD;
    return good > 0 ? UNSHARD_ALL_GOOD : UNSHARD_NOTHING_TO_CHECK;
}

/* ---- one file ----------------------------------------------------------------------------------
 */

/* A file while it is judged. */
struct judgement {
    struct report *report;
    const struct source_file *file;
    const struct expectation *expectation;
    const struct hash_request *request;
    struct unshard_file_report *out;
    bool failed; /* memory was short */
};

static const char *copy(struct judgement *judgement, const char *text)
{
    const char *result = arena_copy_string(&judgement->report->arena, text, strlen(text));
    judgement->failed = judgement->failed || result == NULL;
    return result;
}

static void set_error(struct judgement *judgement, enum unshard_verdict verdict,
                      const struct unshard_error *error)
{
    struct unshard_error *kept = arena_alloc(&judgement->report->arena, sizeof *kept);
    judgement->failed = judgement->failed || kept == NULL;
    if (kept != NULL)
        *kept = *error;
    judgement->out->verdict = verdict;
    judgement->out->error = kept;
}

static void mismatch_size(struct judgement *judgement)
{
    const struct expectation *expectation = judgement->expectation;
    uint64_t actual = judgement->file->size, expected = expectation->size;
    const char *origin = expectation->size_origin;
    struct unshard_error error;
    char digits[24];
    error_set_at(&error, actual < expected ? "truncated" : "too-long", 0,
                 actual < expected ? actual : expected,
                 "%s: %llu bytes, and it should be %llu according to %s", judgement->file->path,
                 (unsigned long long)actual, (unsigned long long)expected, origin);
    set_error(judgement, UNSHARD_MISMATCH, &error);
    judgement->out->algorithm = "size";
    judgement->out->origin = copy(judgement, origin);
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)expected);
    judgement->out->expected = copy(judgement, digits);
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)actual);
    judgement->out->actual = copy(judgement, digits);
    judgement->out->bad_offset = error.offset;
}

static uint64_t first_difference(const struct hash_request *request, const uint8_t *known,
                                 uint32_t *number)
{
    size_t size = digest_size(request->chunk_algorithm);
    for (uint32_t i = 0; i < request->chunk_count; i++) {
        if (memcmp(request->chunks + i * size, known + i * size, size) == 0)
            continue;
        *number = i;
        return i * request->chunk_bytes;
    }
    return UNSHARD_NO_OFFSET;
}

/* The digests of chunks that a manifest knows, cut as they were computed; or NULL. */
static const struct expected_chunks *comparable_chunks(const struct judgement *judgement)
{
    const struct expected_chunks *chunks = judgement->expectation->chunks;
    if (chunks == NULL || judgement->request->chunk_bytes != chunks->chunk_bytes ||
        judgement->request->chunk_algorithm != chunks->algorithm ||
        judgement->request->chunk_count != chunks->count)
        return NULL;
    return chunks;
}

static void mismatch_digest(struct judgement *judgement, const struct digest *expected,
                            const struct digest *actual, const char *origin, uint64_t bad_offset)
{
    char hex[DIGEST_MAX_HEX], other[DIGEST_MAX_HEX], where[64] = "";
    struct unshard_error error;
    const char *algorithm = digest_algorithm_name(expected->algorithm);
    if (bad_offset != UNSHARD_NO_OFFSET)
        snprintf(where, sizeof where, "; the first bad chunk begins at byte %llu",
                 (unsigned long long)bad_offset);
    error_set_at(&error, "digest-mismatch", 0, bad_offset,
                 "%.200s: %s is %.16s..., %.80s says "
                 "%.16s...%s",
                 judgement->file->path, algorithm, digest_to_hex(actual, other), origin,
                 digest_to_hex(expected, hex), where);
    set_error(judgement, UNSHARD_MISMATCH, &error);
    judgement->out->algorithm = algorithm;
    judgement->out->origin = copy(judgement, origin);
    judgement->out->expected = copy(judgement, hex);
    judgement->out->actual = copy(judgement, other);
    judgement->out->bad_offset = bad_offset;
}

static void mismatch_chunk(struct judgement *judgement, const struct expected_chunks *chunks,
                           uint32_t number, uint64_t offset)
{
    size_t size = digest_size(chunks->algorithm);
    struct digest expected = expected_chunk(chunks, number),
                  actual = {.algorithm = chunks->algorithm};
    memcpy(actual.bytes, judgement->request->chunks + number * size, size);
    mismatch_digest(judgement, &expected, &actual, chunks->origin, offset);
}

/* The content has been read: all that is known of it is compared. */
static void compare(struct judgement *judgement, const uint8_t *kept)
{
    const struct expectation *expectation = judgement->expectation;
    const struct hash_request *request = judgement->request;
    const struct expected_chunks *chunks = comparable_chunks(judgement);
    const uint8_t *known = chunks != NULL ? chunks->digests : kept;
    uint32_t number = 0;
    uint64_t offset = known != NULL ? first_difference(request, known, &number) : UNSHARD_NO_OFFSET;
    for (uint32_t i = 0; i < expectation->digest_count; i++) {
        const struct expected_digest *expected = &expectation->digests[i];
        const struct digest *actual = &request->digests[expected->digest.algorithm];
        if (digest_equal(&expected->digest, actual))
            continue;
        mismatch_digest(judgement, &expected->digest, actual, expected->origin, offset);
        return;
    }
    if (chunks != NULL && offset != UNSHARD_NO_OFFSET) {
        mismatch_chunk(judgement, chunks, number, offset);
        return;
    }
    if (expectation->digest_count == 0 && chunks == NULL)
        return;
    const struct expected_digest *best = expectation->digests;
    char hex[DIGEST_MAX_HEX];
    judgement->out->verdict = UNSHARD_VERIFIED;
    judgement->out->algorithm = digest_algorithm_name(
        expectation->digest_count > 0 ? best->digest.algorithm : chunks->algorithm);
    judgement->out->origin =
        copy(judgement, expectation->digest_count > 0 ? best->origin : chunks->origin);
    if (expectation->digest_count > 0)
        judgement->out->expected = copy(judgement, digest_to_hex(&best->digest, hex));
}

bool report_is_absent(const struct source_file *file)
{
    /* Discovery has nothing to fill in for such a file but why it has failed. */
    return file->failed && file->inode == 0 && file->device == 0;
}

static void judge(struct judgement *judgement, const uint8_t *kept)
{
    const struct expectation *expectation = judgement->expectation;
    const struct hash_request *request = judgement->request;
    if (report_is_absent(judgement->file))
        set_error(judgement,
                  judgement->file->error->errno_value == ENOENT ? UNSHARD_MISSING
                                                                : UNSHARD_UNREADABLE,
                  judgement->file->error);
    else if (expectation != NULL && expectation->contradicts)
        set_error(judgement, UNSHARD_CONTRADICTED, &expectation->error);
    else if (request != NULL && request->result != 0)
        set_error(judgement, UNSHARD_UNREADABLE, &request->error);
    else if (expectation != NULL && expectation->has_size &&
             expectation->size != judgement->file->size)
        mismatch_size(judgement);
    else if (expectation != NULL && request != NULL)
        compare(judgement, kept);
}

int report_add_file(struct report *report, const struct source_file *file,
                    const struct hash_request *request, const uint8_t *kept)
{
    struct unshard_report *result = &report->result;
    struct judgement judgement = {.report = report,
                                  .file = file,
                                  .expectation = file->expectation,
                                  .request = request,
                                  .out = &result->files[result->file_count]};
    *judgement.out = (struct unshard_file_report){.path = copy(&judgement, file->path),
                                                  .bytes = file->size,
                                                  .verdict = UNSHARD_UNVERIFIED,
                                                  .bad_offset = UNSHARD_NO_OFFSET};
    judge(&judgement, kept);
    result->file_count++;
    result->counts[judgement.out->verdict]++;
    if (request != NULL && request->result == 0)
        result->bytes_checked += file->size;
    return judgement.failed ? -ENOMEM : 0;
}

int report_add_missing(struct report *report, const struct missing_file *missing)
{
    struct unshard_report *result = &report->result;
    struct judgement judgement = {.report = report, .out = &result->files[result->file_count]};
    struct unshard_error error;
    error_set(&error, "missing", ENOENT, "%s: it is not there, and %s names it", missing->path,
              missing->origin);
    *judgement.out = (struct unshard_file_report){.path = copy(&judgement, missing->path),
                                                  .origin = copy(&judgement, missing->origin),
                                                  .bad_offset = UNSHARD_NO_OFFSET};
    set_error(&judgement, UNSHARD_MISSING, &error);
    result->file_count++;
    result->counts[UNSHARD_MISSING]++;
    return judgement.failed ? -ENOMEM : 0;
}
