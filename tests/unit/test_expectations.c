/* SPDX-License-Identifier: MIT
 *
 * What discovery finds to be known of files: "hello" stands for the content of every file, so that
 * the vectors of test_digest.c are right and others wrong. */
#include "digest/list_name.h"
#include "digest/manifest.h"
#include "support/layout_check.h"
#include "support/safetensors_fixture.h"
#include "tree/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#define SHA256 "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define OTHER_SHA256 "0000000000000000000000000000000000000000000000000000000000000000"
#define GIT "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
#define MD5 "5d41402abc4b2a76b9719d911017c592"
#define XXH64 "26c7827d889f6da3"
#define XXH3_128 "b5e9c1ad071b3e7fc779cfaa5e523818"
#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define MANIFEST(path, size, sha256)                                                        \
    "{\"version\":1,\"chunk_bytes\":65536,\"files\":[{\"path\":\"" path "\",\"size\":" size \
    ",\"sha256\":\"" sha256 "\",\"chunks\":[\"" XXH3_128 "\"]}]}"

static struct unshard_checkpoint *open_checkpoint(const char *source)
{
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_error error = {0};
    char what[1024];
    if (unshard_checkpoint_open(source, NULL, &checkpoint, &error) != 0)
        fail_msg("%s", error.message);
    if (check_layouts(checkpoint, what) != NULL)
        fail_msg("%s", what);
    return checkpoint;
}

static const struct expectation *expectation_of(const struct unshard_checkpoint *checkpoint,
                                                const char *path)
{
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        if (strcmp(checkpoint->files[i].path, path) == 0)
            return checkpoint->files[i].expectation;
    fail_msg("no file %s", path);
    return NULL;
}

static void assert_digest(const struct expectation *expectation, uint32_t number,
                          enum digest_algorithm algorithm, const char *hex, const char *origin)
{
    char actual[DIGEST_MAX_HEX];
    assert_non_null(expectation);
    assert_true(number < expectation->digest_count);
    assert_int_equal(expectation->digests[number].digest.algorithm, algorithm);
    assert_string_equal(digest_to_hex(&expectation->digests[number].digest, actual), hex);
    assert_string_equal(expectation->digests[number].origin, origin);
}

static bool has_note(const struct unshard_checkpoint *checkpoint, const char *words)
{
    for (uint32_t i = 0; i < checkpoint->note_count; i++)
        if (strstr(checkpoint->notes[i], words) != NULL)
            return true;
    return false;
}

static void lists_say_what_they_say_of_their_directory(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "a.bin", "hello");
    fixture_text(root, "sub/a.bin", "hello");
    fixture_text(root, "sub/b.bin", "hello");
    fixture_text(root, "c.bin", "hello");
    fixture_text(root, "SHA256SUMS", "# list\n" SHA256 "  ./a.bin\n" SHA256 "  sub/b.bin\n");
    fixture_text(root, "sub/checklist.chk", MD5 "  a.bin\n");
    fixture_text(root, "sub/xxhsum.txt", "XXH64 (a.bin) = " XXH64 "\n");
    fixture_text(root, "c.bin.sha256", SHA256 "\n");
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_digest(expectation_of(checkpoint, "a.bin"), 0, DIGEST_SHA256, SHA256,
                  "SHA256SUMS line 2");
    assert_digest(expectation_of(checkpoint, "sub/b.bin"), 0, DIGEST_SHA256, SHA256,
                  "SHA256SUMS line 3");
    assert_digest(expectation_of(checkpoint, "sub/a.bin"), 0, DIGEST_MD5, MD5,
                  "sub/checklist.chk line 1");
    assert_digest(expectation_of(checkpoint, "sub/a.bin"), 1, DIGEST_XXH64, XXH64,
                  "sub/xxhsum.txt line 1");
    assert_digest(expectation_of(checkpoint, "c.bin"), 0, DIGEST_SHA256, SHA256,
                  "c.bin.sha256 line 1");
    assert_null(expectation_of(checkpoint, "SHA256SUMS"));
    assert_int_equal(checkpoint->problem_count, 0);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void lists_never_lead_out(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "outside.bin", "hello");
    fixture_text(root, "in/a.bin", "hello");
    fixture_text(root, "in/SHA256SUMS", SHA256 "  ../outside.bin\n" SHA256 "  /etc/passwd\n");
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture_path(root, "in"));
    assert_null(expectation_of(checkpoint, "a.bin"));
    assert_true(has_note(checkpoint, "the name \"../outside.bin\" has a component"));
    assert_int_equal(checkpoint->missing_count, 0);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void malformed_lists_are_problems_and_their_good_lines_are_used(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "a.bin", "hello");
    fixture_text(root, "SHA256SUMS", SHA256 "  a.bin\nrubbish\nmore\n");
    fixture_text(root, "xxhsum.txt", "rubbish\n");
    fixture_text(root, MANIFEST_NAME, "{}");
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_digest(expectation_of(checkpoint, "a.bin"), 0, DIGEST_SHA256, SHA256,
                  "SHA256SUMS line 1");
    assert_int_equal(checkpoint->problem_count, 3);
    assert_string_equal(checkpoint->problems[0].message,
                        "SHA256SUMS line 2: no digest of the right length at its beginning (and 1 "
                        "more entries)");
    assert_string_equal(checkpoint->problems[0].code, "malformed-checksums");
    assert_true(checkpoint->problems[0].time > 0);
    assert_string_equal(checkpoint->problems[1].message,
                        "unshard-manifest.json line 1: top level: there are no files");
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void files_that_are_not_there_are_told(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "sub/a.bin", "hello");
    fixture_text(root, "sub/SHA256SUMS", SHA256 "  a.bin\n" SHA256 "  gone.bin\n");
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->missing_count, 1);
    assert_string_equal(checkpoint->missing[0].path, "sub/gone.bin");
    assert_string_equal(checkpoint->missing[0].origin, "sub/SHA256SUMS line 2");
    assert_true(has_note(checkpoint, "sub/gone.bin, which is not there"));
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void origins_that_differ_contradict(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "a.bin", "hello");
    fixture_text(root, "b.bin", "hello");
    fixture_text(root, "c.bin", "hello");
    fixture_text(root, "SHA256SUMS", SHA256 "  a.bin\n" SHA256 "  b.bin\n" SHA256 "  c.bin\n");
    fixture_text(root, "checksums.json",
                 "{\"checksums\":{\"a.bin\":\"" OTHER_SHA256 "\",\"b.bin\":\"" SHA256 "\"}}");
    fixture_text(root, MANIFEST_NAME, MANIFEST("c.bin", "7", SHA256));
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    const struct expectation *a = expectation_of(checkpoint, "a.bin");
    assert_true(a->contradicts);
    assert_string_equal(a->error.code, "contradicting-digests");
    assert_string_equal(a->error.message,
                        "a.bin: SHA256SUMS line 1 says sha256 2cf24dba5fb0a30e..., checksums.json "
                        "says 0000000000000000...: remove or correct one of them");
    assert_false(expectation_of(checkpoint, "b.bin")->contradicts);
    assert_int_equal(expectation_of(checkpoint, "b.bin")->digest_count, 1);
    assert_false(expectation_of(checkpoint, "c.bin")->contradicts);
    assert_true(expectation_of(checkpoint, "c.bin")->has_size);
    assert_int_equal(expectation_of(checkpoint, "c.bin")->size, 7);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void a_manifest_comes_first_and_brings_chunks(void **state)
{
    (void)state;
    char *root = fixture_directory();
    struct unshard_view_options without = {.ignore_manifest = true};
    struct unshard_checkpoint *checkpoint;
    fixture_text(root, "a.bin", "hello");
    fixture_text(root, "SHA256SUMS", SHA256 "  a.bin\n");
    fixture_text(root, "md5sum.txt", MD5 "  a.bin\n");
    fixture_text(root, MANIFEST_NAME, MANIFEST("a.bin", "5", SHA256));
    checkpoint = open_checkpoint(root);
    const struct expectation *a = expectation_of(checkpoint, "a.bin");
    assert_int_equal(a->digest_count, 2);
    assert_digest(a, 0, DIGEST_SHA256, SHA256, "unshard-manifest.json");
    assert_digest(a, 1, DIGEST_MD5, MD5, "md5sum.txt line 1");
    assert_true(a->has_size && a->size == 5);
    assert_non_null(a->chunks);
    assert_int_equal(a->chunks->count, 1);
    assert_int_equal(a->chunks->chunk_bytes, 65536);
    struct digest hello = digest_of(DIGEST_XXH3_128, NULL, "hello", 5);
    assert_true(expected_chunks_match(a->chunks, 0, &hello));
    unshard_checkpoint_close(checkpoint);
    assert_int_equal(unshard_checkpoint_open(root, &without, &checkpoint, NULL), 0);
    a = expectation_of(checkpoint, "a.bin");
    assert_digest(a, 0, DIGEST_SHA256, SHA256, "SHA256SUMS line 1");
    assert_null(a->chunks);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* ---- the hub -----------------------------------------------------------------------------------
 */

#define SNAPSHOT "models--a--b/snapshots/" COMMIT

static struct unshard_checkpoint *lay_out(const struct unshard_checkpoint *place,
                                          const struct unshard_checkpoint *above, const char *path)
{
    struct unshard_checkpoint *layout = NULL;
    struct unshard_error error = {0};
    struct layout_context context = {.above = above};
    if (checkpoint_lay_out(place, &context, path, &layout, &error) != 0)
        fail_msg("%s", error.message);
    return layout;
}

/* One directory after the other, as somebody looks into them. */
static void lists_above_are_parsed_once_and_told_of_once(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "sub/a.bin", "hello");
    fixture_text(root, "sub/more/b.bin", "hello");
    fixture_text(root, MANIFEST_NAME, MANIFEST("sub/a.bin", "5", SHA256));
    fixture_text(root, "SHA256SUMS", "rubbish\n" SHA256 "  sub/more/b.bin\n" SHA256 "  gone/c\n");
    fixture_text(root, "sub/MD5SUMS", MD5 "  a.bin\n");
    struct unshard_checkpoint *place = open_checkpoint(root);
    struct unshard_checkpoint *top = lay_out(place, NULL, "");
    assert_int_equal(top->problem_count, 1);
    assert_int_equal(top->missing_count, 1);
    assert_string_equal(top->missing[0].path, "gone/c");
    assert_int_equal(top->inherited.list_count, 2);
    assert_int_equal(top->inherited.parsed_count, 1);

    struct unshard_checkpoint *sub = lay_out(place, top, "sub");
    assert_ptr_equal(sub->inherited.parsed[0], top->inherited.parsed[0]);
    unshard_checkpoint_close(top);
    const struct expectation *a = expectation_of(sub, "sub/a.bin");
    assert_digest(a, 0, DIGEST_SHA256, SHA256, MANIFEST_NAME);
    assert_int_equal(expected_chunk(a->chunks, 0).algorithm, DIGEST_XXH3_128);
    assert_int_equal(sub->problem_count + sub->missing_count, 0);
    assert_int_equal(sub->inherited.list_count, 1); /* of the others nothing lies below */
    assert_string_equal(sub->inherited.lists[0], "SHA256SUMS");

    struct unshard_checkpoint *more = lay_out(place, sub, "sub/more");
    unshard_checkpoint_close(sub);
    assert_digest(expectation_of(more, "sub/more/b.bin"), 0, DIGEST_SHA256, SHA256,
                  "SHA256SUMS line 2");
    assert_int_equal(more->problem_count + more->missing_count, 0);
    assert_int_equal(more->inherited.list_count + more->inherited.parsed_count, 0);
    unshard_checkpoint_close(more);
    unshard_checkpoint_close(place);
    fixture_remove(root);
}

/* What was parsed of it is of no use when it has changed since. */
static void a_manifest_above_that_changes_is_parsed_anew(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "sub/a.bin", "hello");
    fixture_text(root, MANIFEST_NAME, MANIFEST("sub/a.bin", "5", OTHER_SHA256));
    struct unshard_checkpoint *place = open_checkpoint(root);
    struct unshard_checkpoint *top = lay_out(place, NULL, "");
    unlink(fixture_path(root, MANIFEST_NAME));
    fixture_text(root, MANIFEST_NAME, " " MANIFEST("sub/a.bin", "5", SHA256));
    struct unshard_checkpoint *sub = lay_out(place, top, "sub");
    assert_digest(expectation_of(sub, "sub/a.bin"), 0, DIGEST_SHA256, SHA256, MANIFEST_NAME);
    unshard_checkpoint_close(sub);
    unshard_checkpoint_close(top);
    unshard_checkpoint_close(place);
    fixture_remove(root);
}

static void blob_names_are_digests(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "models--a--b/blobs/" SHA256, "hello");
    fixture_text(root, "models--a--b/blobs/" GIT, "hello");
    fixture_text(root, "models--a--b/blobs/etag-2", "hello");
    fixture_symlink(root, SNAPSHOT "/a.bin", "../../blobs/" SHA256);
    fixture_symlink(root, SNAPSHOT "/sub/config.json", "../../../blobs/" GIT);
    fixture_symlink(root, SNAPSHOT "/odd.bin", "../../blobs/etag-2");
    fixture_text(root, SNAPSHOT "/plain.bin", "hello");
    /* The words of a symlink are no proof: this one leads to another file. */
    fixture_text(root, SNAPSHOT "/blobs/" OTHER_SHA256, "hello");
    fixture_symlink(root, SNAPSHOT "/fake.bin", "blobs/" OTHER_SHA256);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture_path(root, SNAPSHOT));
    assert_digest(expectation_of(checkpoint, "a.bin"), 0, DIGEST_SHA256, SHA256,
                  "hub cache blob name");
    assert_digest(expectation_of(checkpoint, "sub/config.json"), 0, DIGEST_GIT_SHA1, GIT,
                  "hub cache blob name");
    assert_null(expectation_of(checkpoint, "odd.bin"));
    assert_null(expectation_of(checkpoint, "plain.bin"));
    assert_null(expectation_of(checkpoint, "fake.bin"));
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

#define HASH "abadf0df9de54e70b1df59db3b9b9ab3c2cbe3a8d7a3a3fc2b9b9d2b0dd31d8a"
#define SHARED "../../blobs/ab/" HASH
#define BLOB "models--a--b/blobs/" SHA256

/* A cache whose repositories share their blobs: what has the digest as its name is a symlink. */
static char *shared_cache(void)
{
    char *root = fixture_directory();
    fixture_text(root, "blobs/ab/" HASH, "hello");
    fixture_symlink(root, BLOB, SHARED);
    fixture_symlink(root, SNAPSHOT "/a.bin", "../../blobs/" SHA256);
    return root;
}

static void assert_blob(const char *source, const char *path)
{
    struct unshard_checkpoint *checkpoint = open_checkpoint(source);
    assert_digest(expectation_of(checkpoint, path), 0, DIGEST_SHA256, SHA256,
                  "hub cache blob name");
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        int fd = checkpoint_open_file(checkpoint, i, 0);
        assert_true(fd >= 0);
        close(fd);
    }
    unshard_checkpoint_close(checkpoint);
}

/* Whatever of the cache is mounted, and by each of its names. */
static void blobs_are_known_below_any_source(void **state)
{
    (void)state;
    char *root = shared_cache();
    for (unsigned shared = 0; shared < 2; shared++) {
        if (!shared) {
            unlink(fixture_path(root, BLOB));
            fixture_text(root, BLOB, "hello");
        } else {
            unlink(fixture_path(root, BLOB));
            fixture_symlink(root, BLOB, SHARED);
            assert_blob(root, "blobs/ab/" HASH);
        }
        assert_blob(root, SNAPSHOT "/a.bin");
        assert_blob(root, BLOB);
        assert_blob(fixture_path(root, "models--a--b"), "snapshots/" COMMIT "/a.bin");
        assert_blob(fixture_path(root, "models--a--b"), "blobs/" SHA256);
        assert_blob(fixture_path(root, "models--a--b/snapshots"), COMMIT "/a.bin");
        assert_blob(fixture_path(root, "models--a--b/blobs"), SHA256);
        assert_blob(fixture_path(root, SNAPSHOT), "a.bin");
    }
    fixture_remove(root);
}

/* A repository that only a symlink leads to, and whose blobs lie on another disk. */
static void blobs_are_known_where_symlinks_are_followed(void **state)
{
    (void)state;
    struct unshard_view_options follow = {.follow_symlinks = true};
    struct unshard_checkpoint *checkpoint = NULL;
    char *root = fixture_directory();
    fixture_text(root, "disk/" SHA256, "hello");
    fixture_symlink(root, "models--a--b/blobs", "../disk");
    fixture_symlink(root, SNAPSHOT "/a.bin", "../../blobs/" SHA256);
    fixture_symlink(root, "source/model", "../" SNAPSHOT);
    fixture_symlink(root, "source/a.bin", "../" SNAPSHOT "/a.bin");
    assert_int_equal(
        unshard_checkpoint_open(fixture_path(root, "source"), &follow, &checkpoint, NULL), 0);
    assert_digest(expectation_of(checkpoint, "model/a.bin"), 0, DIGEST_SHA256, SHA256,
                  "hub cache blob name");
    assert_digest(expectation_of(checkpoint, "a.bin"), 0, DIGEST_SHA256, SHA256,
                  "hub cache blob name");
    unshard_checkpoint_close(checkpoint);
    fixture_text(root, "models--c--d/blobs/" SHA256, "hello");
    fixture_symlink(root, "models--c--d/snapshots/main/b.bin", "../../blobs/" SHA256);
    fixture_symlink(root, "alone/b.bin", "../models--c--d/snapshots/main/b.bin");
    assert_int_equal(
        unshard_checkpoint_open(fixture_path(root, "alone"), &follow, &checkpoint, NULL), 0);
    assert_digest(expectation_of(checkpoint, "b.bin"), 0, DIGEST_SHA256, SHA256,
                  "hub cache blob name");
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* The name of a file that repositories share is another hash than that of its bytes. */
static void names_of_shared_blobs_are_no_digests(void **state)
{
    (void)state;
    char *root = shared_cache();
    unlink(fixture_path(root, BLOB));
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_null(expectation_of(checkpoint, "blobs/ab/" HASH));
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void assert_is_outside(const char *root, const char *name)
{
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture_path(root, SNAPSHOT));
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        assert_string_not_equal(checkpoint->files[i].path, name);
    assert_true(has_note(checkpoint, name) && has_note(checkpoint, "outside the checkpoint"));
    unshard_checkpoint_close(checkpoint);
}

static void nothing_else_of_a_cache_is_inside(void **state)
{
    (void)state;
    char *root = shared_cache();
    fixture_text(root, "models--c--d/blobs/" OTHER_SHA256, "hello");
    fixture_text(root, "blobs/ab/" HASH ".refs", "hello");
    fixture_text(root, "models--a--b/refs/main", COMMIT);
    fixture_symlink(root, "models--a--b/blobs/list", "../../blobs/ab/" HASH ".refs");
    fixture_symlink(root, SNAPSHOT "/list.bin", "../../blobs/list");
    fixture_symlink(root, SNAPSHOT "/direct.bin", "../../../blobs/ab/" HASH);
    fixture_symlink(root, SNAPSHOT "/ref.bin", "../../refs/main");
    fixture_symlink(root, SNAPSHOT "/foreign.bin", "../../../models--c--d/blobs/" OTHER_SHA256);
    assert_is_outside(root, "list.bin");
    assert_is_outside(root, "direct.bin");
    assert_is_outside(root, "ref.bin");
    assert_is_outside(root, "foreign.bin");
    fixture_remove(root);
}

#define TREE                                                                     \
    "{\"format_version\":1,\"files\":{"                                          \
    "\"sub/a.bin\":{\"size\":5,\"blob_id\":\"" GIT "\",\"lfs_sha256\":\"" SHA256 \
    "\",\"lfs_size\":5,\"xet_hash\":\"00\"},"                                    \
    "\"config.json\":{\"size\":5,\"blob_id\":\"" GIT "\"},"                      \
    "\"absent.bin\":{\"size\":5,\"blob_id\":\"" GIT "\"}}}"

static void trees_count_for_snapshots_of_their_commit(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "models--a--b/trees/" COMMIT ".json", TREE);
    fixture_text(root, SNAPSHOT "/sub/a.bin", "hello");
    fixture_text(root, SNAPSHOT "/config.json", "hello");
    fixture_text(root, "models--a--b/snapshots/main/config.json", "hello");
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture_path(root, SNAPSHOT));
    assert_digest(expectation_of(checkpoint, "sub/a.bin"), 0, DIGEST_SHA256, SHA256,
                  "trees/" COMMIT ".json");
    assert_int_equal(expectation_of(checkpoint, "sub/a.bin")->digest_count, 1);
    assert_true(expectation_of(checkpoint, "sub/a.bin")->has_size);
    assert_digest(expectation_of(checkpoint, "config.json"), 0, DIGEST_GIT_SHA1, GIT,
                  "trees/" COMMIT ".json");
    assert_int_equal(checkpoint->missing_count, 0);
    unshard_checkpoint_close(checkpoint);
    /* A component alone, and a snapshot of another name. */
    checkpoint = open_checkpoint(fixture_path(root, SNAPSHOT "/sub"));
    assert_digest(expectation_of(checkpoint, "a.bin"), 0, DIGEST_SHA256, SHA256,
                  "trees/" COMMIT ".json");
    unshard_checkpoint_close(checkpoint);
    /* Everything that the snapshot lies in. */
    static const struct {
        const char *source, *path, *origin;
    } above[] = {{"models--a--b/snapshots", COMMIT "/sub/a.bin", "trees/" COMMIT ".json"},
                 {"models--a--b", "snapshots/" COMMIT "/sub/a.bin", "trees/" COMMIT ".json"},
                 {"", SNAPSHOT "/sub/a.bin", "models--a--b/trees/" COMMIT ".json"}};
    for (size_t i = 0; i < sizeof above / sizeof *above; i++) {
        checkpoint = open_checkpoint(fixture_path(root, above[i].source));
        assert_digest(expectation_of(checkpoint, above[i].path), 0, DIGEST_SHA256, SHA256,
                      above[i].origin);
        unshard_checkpoint_close(checkpoint);
    }
    checkpoint = open_checkpoint(fixture_path(root, "models--a--b/snapshots/main"));
    assert_null(expectation_of(checkpoint, "config.json"));
    unshard_checkpoint_close(checkpoint);
    fixture_text(root, "models--a--b/trees/" COMMIT ".json", "{");
    checkpoint = open_checkpoint(fixture_path(root, SNAPSHOT));
    assert_int_equal(checkpoint->problem_count, 1);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

#define DOWNLOAD ".cache/huggingface/download/"

static void downloads_are_known_until_they_change(void **state)
{
    (void)state;
    char *root = fixture_directory();
    struct timeval then[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    fixture_text(root, "sub/a.bin", "hello");
    fixture_text(root, "config.json", "hello");
    fixture_text(root, "edited.json", "hello");
    fixture_text(root, "broken.json", "hello");
    assert_int_equal(utimes(fixture_path(root, "sub/a.bin"), then), 0);
    assert_int_equal(utimes(fixture_path(root, "config.json"), then), 0);
    fixture_text(root, DOWNLOAD "sub/a.bin.metadata", COMMIT "\n\"" SHA256 "\"\n999.5\n");
    fixture_text(root, DOWNLOAD "config.json.metadata", COMMIT "\nW/\"x-2\"\n1000.0\n");
    fixture_text(root, DOWNLOAD "edited.json.metadata", COMMIT "\n" GIT "\n1000.0\n");
    fixture_text(root, DOWNLOAD "broken.json.metadata", COMMIT "\n" GIT "\nnan\n");
    fixture_text(root, ".cache/huggingface/trees/" COMMIT ".json", TREE);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_digest(expectation_of(checkpoint, "sub/a.bin"), 0, DIGEST_SHA256, SHA256,
                  DOWNLOAD "sub/a.bin.metadata");
    assert_true(expectation_of(checkpoint, "sub/a.bin")->has_size);
    /* Its ETag says nothing, but the commit that it was taken from is known. */
    assert_digest(expectation_of(checkpoint, "config.json"), 0, DIGEST_GIT_SHA1, GIT,
                  ".cache/huggingface/trees/" COMMIT ".json");
    assert_null(expectation_of(checkpoint, "edited.json"));
    assert_true(has_note(checkpoint, "edited.json was changed after its download"));
    assert_null(expectation_of(checkpoint, "broken.json"));
    assert_int_equal(checkpoint->problem_count, 1);
    assert_string_equal(checkpoint->problems[0].message,
                        DOWNLOAD "broken.json.metadata line 3: \"nan\" is no time in seconds");
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* Several downloads below one directory, one of them within another. */
static void downloads_count_where_they_were_made(void **state)
{
    (void)state;
    char *root = fixture_directory();
    struct timeval then[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    fixture_text(root, "one/sub/a.bin", "hello");
    fixture_text(root, "one/" DOWNLOAD "sub/a.bin.metadata", COMMIT "\n" SHA256 "\n1000\n");
    fixture_text(root, "one/.cache/huggingface/trees/" COMMIT ".json", TREE);
    fixture_text(root, "one/two/b.bin", "hello");
    fixture_text(root, "one/two/" DOWNLOAD "c.bin.metadata", COMMIT "\n" GIT "\n1000\n");
    fixture_text(root, "one/" DOWNLOAD "two/b.bin.metadata", COMMIT "\n" GIT "\n1000\n");
    assert_int_equal(utimes(fixture_path(root, "one/sub/a.bin"), then), 0);
    assert_int_equal(utimes(fixture_path(root, "one/two/b.bin"), then), 0);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    const struct expectation *a = expectation_of(checkpoint, "one/sub/a.bin");
    assert_digest(a, 0, DIGEST_SHA256, SHA256, "one/" DOWNLOAD "sub/a.bin.metadata");
    assert_true(a->has_size);
    assert_string_equal(a->size_origin, "one/.cache/huggingface/trees/" COMMIT ".json");
    assert_digest(expectation_of(checkpoint, "one/two/b.bin"), 0, DIGEST_GIT_SHA1, GIT,
                  "one/" DOWNLOAD "two/b.bin.metadata");
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* ---- names and numbers -------------------------------------------------------------------------
 */

static void lists_are_known_by_their_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum digest_list_kind kind;
        enum digest_algorithm algorithm;
        size_t subject_length;
    } rows[] = {
        {"SHA256SUMS", DIGEST_LIST_CHECKSUMS, DIGEST_SHA256, 0},
        {"sha256sum.txt", DIGEST_LIST_CHECKSUMS, DIGEST_SHA256, 0},
        {"SHA512SUMS.txt", DIGEST_LIST_CHECKSUMS, DIGEST_SHA512, 0},
        {"a.b.sha256", DIGEST_LIST_CHECKSUMS, DIGEST_SHA256, 3},
        {"a.SHA256SUM", DIGEST_LIST_CHECKSUMS, DIGEST_SHA256, 1},
        {"a.md5", DIGEST_LIST_CHECKSUMS, DIGEST_MD5, 1},
        {"checklist.chk", DIGEST_LIST_CHECKSUMS, DIGEST_MD5, 0},
        {"tokenizer_checklist.chk", DIGEST_LIST_CHECKSUMS, DIGEST_MD5, 0},
        {"checksums.txt", DIGEST_LIST_CHECKSUMS, DIGEST_NONE, 0},
        {"checksums.json", DIGEST_LIST_JSON, DIGEST_NONE, 0},
        {"xxhsum.txt", DIGEST_LIST_XXHSUM, DIGEST_NONE, 0},
        {"XXH128SUMS", DIGEST_LIST_XXHSUM, DIGEST_NONE, 0},
        {"a.xxh3", DIGEST_LIST_XXHSUM, DIGEST_NONE, 1},
        {"unshard-manifest.json", DIGEST_LIST_MANIFEST, DIGEST_NONE, 0},
        {"sha256", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
        {".sha256", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
        {"a.chk", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
        {"SHA256SUMS.asc", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
        {"config.json", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
        {"", DIGEST_LIST_NOT_ONE, DIGEST_NONE, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct digest_list_name name = digest_list_name(rows[i].name);
        if (name.kind != rows[i].kind || name.algorithm != rows[i].algorithm ||
            name.subject_length != rows[i].subject_length)
            fail_msg("%s: kind %d algorithm %d subject %zu", rows[i].name, name.kind,
                     name.algorithm, name.subject_length);
    }
}

/* Lists beside each of many files, read in batches; the time is bounded by the caller. */
static void many_files_have_their_own_lists(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    char *root = fixture_directory(), name[64];
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "f%u.bin", i);
        fixture_text(root, name, "hello");
        snprintf(name, sizeof name, "f%u.bin.sha256", i);
        fixture_text(root, name, SHA256 "\n");
        snprintf(name, sizeof name, DOWNLOAD "f%u.bin.metadata", i);
        fixture_text(root, name, COMMIT "\n" GIT "\n9000000000\n");
    }
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "f%u.bin", i);
        const struct expectation *known = expectation_of(checkpoint, name);
        assert_non_null(known);
        assert_int_equal(known->digest_count, 2);
        assert_int_equal(known->digests[0].digest.algorithm, DIGEST_SHA256);
        assert_int_equal(known->digests[1].digest.algorithm, DIGEST_GIT_SHA1);
    }
    assert_int_equal(checkpoint->problem_count, 0);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* One list in each of many directories, 60 MiB long: in time some are not read, which is told. */
static void lists_have_a_bound_together(void **state)
{
    (void)state;
    char *root = fixture_directory();
    unsigned unread = 0;
    fixture_text(root, "SHA256SUMS", SHA256 "  a.bin\n");
    assert_int_equal(truncate(fixture_path(root, "SHA256SUMS"), 60 << 20), 0);
    for (char name[] = "a/SHA256SUMS"; name[0] <= 'j'; name[0]++)
        assert_int_equal(symlink("../SHA256SUMS", fixture_path(root, name)), 0);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    for (uint32_t i = 0; i < checkpoint->problem_count; i++)
        if (strcmp(checkpoint->problems[i].code, "too-large") == 0) {
            assert_non_null(strstr(checkpoint->problems[i].message, "/SHA256SUMS: is not read"));
            unread++;
        }
    assert_int_equal(unread, 3);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_say_what_they_say_of_their_directory),
        cmocka_unit_test(lists_never_lead_out),
        cmocka_unit_test(malformed_lists_are_problems_and_their_good_lines_are_used),
        cmocka_unit_test(files_that_are_not_there_are_told),
        cmocka_unit_test(origins_that_differ_contradict),
        cmocka_unit_test(a_manifest_comes_first_and_brings_chunks),
        cmocka_unit_test(lists_above_are_parsed_once_and_told_of_once),
        cmocka_unit_test(a_manifest_above_that_changes_is_parsed_anew),
        cmocka_unit_test(blob_names_are_digests),
        cmocka_unit_test(blobs_are_known_below_any_source),
        cmocka_unit_test(blobs_are_known_where_symlinks_are_followed),
        cmocka_unit_test(names_of_shared_blobs_are_no_digests),
        cmocka_unit_test(nothing_else_of_a_cache_is_inside),
        cmocka_unit_test(trees_count_for_snapshots_of_their_commit),
        cmocka_unit_test(downloads_are_known_until_they_change),
        cmocka_unit_test(downloads_count_where_they_were_made),
        cmocka_unit_test(lists_are_known_by_their_names),
        cmocka_unit_test(many_files_have_their_own_lists),
        cmocka_unit_test(lists_have_a_bound_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
