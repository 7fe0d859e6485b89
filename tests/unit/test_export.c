/* SPDX-License-Identifier: MIT
 *
 * unshard_export on small checkpoints made here: bytes, names, modes, and what becomes of a source
 * that is not what it was. */
#include "unshard.h"

#include "store/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Larger than one item of the export, and no multiple of anything. */
#define LARGE (UINT64_C(9) * 1024 * 1024 + 12345)

struct fixture {
    char folder[64], source[96], target[96];
};

static void format_path(char *out, size_t capacity, const char *folder, const char *name)
{
    assert_true(snprintf(out, capacity, "%s/%s", folder, name) < (int)capacity);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (!fixture)
        return -1;
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/test_export.XXXXXX");
    if (!mkdtemp(fixture->folder)) {
        free(fixture);
        return -1;
    }
    format_path(fixture->source, sizeof fixture->source, fixture->folder, "source");
    format_path(fixture->target, sizeof fixture->target, fixture->folder, "target");
    *state = fixture;
    return mkdir(fixture->source, 0755);
}

static void remove_tree(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        unlinkat(parent, name, 0);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove_tree(fd, entry->d_name);
    }
    closedir(directory);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    remove_tree(AT_FDCWD, fixture->folder);
    free(fixture);
    return 0;
}

static unsigned char pattern(unsigned seed, uint64_t offset)
{
    return (unsigned char)((offset * 2654435761u + seed * 97u) >> 7);
}

/* A file of one U8 tensor whose bytes follow the pattern. */
static void write_shard(const struct fixture *fixture, const char *name, const char *tensor,
                        uint64_t size, unsigned seed)
{
    char path[512], header[256];
    format_path(path, sizeof path, fixture->source, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    uint64_t length =
        (uint64_t)snprintf(header + 8, sizeof header - 8,
                           "{\"%s\":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[0,%llu]}}",
                           tensor, (unsigned long long)size, (unsigned long long)size);
    memcpy(header, &length, 8);
    fwrite(header, 1, (size_t)length + 8, file);
    for (uint64_t i = 0; i < size; i++)
        putc(pattern(seed, i), file);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const struct fixture *fixture, const char *name, const char *text)
{
    char path[512];
    format_path(path, sizeof path, fixture->source, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void make_checkpoint(const struct fixture *fixture)
{
    char path[512];
    write_shard(fixture, "model-00001-of-00002.safetensors", "a", LARGE, 1);
    write_shard(fixture, "model-00002-of-00002.safetensors", "b", 777, 2);
    write_text(fixture, "model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":9450306},\"weight_map\":{"
               "\"a\":\"model-00001-of-00002.safetensors\","
               "\"b\":\"model-00002-of-00002.safetensors\"}}");
    write_text(fixture, "config.json", "{}\n");
    write_text(fixture, "empty.txt", "");
    format_path(path, sizeof path, fixture->source, "tokenizer");
    assert_int_equal(mkdir(path, 0755), 0);
    write_text(fixture, "tokenizer/vocab.txt", "a b c\n");
}

static struct unshard_checkpoint *open_checkpoint(const struct fixture *fixture)
{
    struct unshard_view_options options = {.order = UNSHARD_ORDER_CANONICAL};
    struct unshard_checkpoint *checkpoint;
    struct unshard_error error = {0};
    if (unshard_checkpoint_open(fixture->source, &options, &checkpoint, &error) < 0)
        fail_msg("%s", error.message);
    return checkpoint;
}

struct progress_seen {
    unsigned calls;
    uint64_t done, total;
};

static void see_progress(void *context, const char *path, uint64_t done, uint64_t total)
{
    struct progress_seen *seen = context;
    assert_non_null(path);
    assert_true(done >= seen->done && done <= total);
    *seen = (struct progress_seen){seen->calls + 1, done, total};
}

static void assert_no_temporary_files(const char *folder)
{
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    struct dirent *entry;
    while ((entry = readdir(directory)))
        assert_null(strstr(entry->d_name, "unshard-tmp"));
    closedir(directory);
}

static bool exists(const struct fixture *fixture, const char *name)
{
    char path[512];
    format_path(path, sizeof path, fixture->target, name);
    return access(path, F_OK) == 0;
}

static void check_merged(const struct fixture *fixture)
{
    char path[512];
    uint64_t header;
    format_path(path, sizeof path, fixture->target, "model.safetensors");
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(&header, 1, 8, file), 8);
    fseek(file, (long)(8 + header), SEEK_SET);
    for (uint64_t i = 0; i < LARGE; i++) {
        if (getc(file) != pattern(1, i))
            fail_msg("byte %llu of tensor a differs", (unsigned long long)i);
    }
    for (uint64_t i = 0; i < 777; i++)
        assert_int_equal(getc(file), pattern(2, i));
    assert_int_equal(getc(file), EOF);
    struct stat stat;
    assert_int_equal(fstat(fileno(file), &stat), 0);
    assert_true(stat.st_mode & S_IWUSR);
    fclose(file);
}

static void test_whole_tree(void **state)
{
    struct fixture *fixture = *state;
    struct progress_seen seen = {0};
    struct unshard_error error = {0};
    make_checkpoint(fixture);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    struct unshard_fetch_options options = {.jobs = 3};
    int result =
        unshard_export(checkpoint, &options, fixture->target, NULL, see_progress, &seen, &error);
    if (result < 0)
        fail_msg("%s", error.message);
    assert_true(seen.calls > 0 && seen.done == seen.total && seen.total > LARGE);
    check_merged(fixture);
    assert_true(exists(fixture, "config.json") && exists(fixture, "empty.txt"));
    assert_true(exists(fixture, "tokenizer/vocab.txt"));
    assert_false(exists(fixture, "model-00001-of-00002.safetensors"));
    assert_no_temporary_files(fixture->target);

    assert_int_equal(unshard_export(checkpoint, NULL, fixture->target, NULL, NULL, NULL, &error),
                     -ENOTEMPTY);
    assert_string_equal(error.code, "target-not-empty");
    unshard_checkpoint_close(checkpoint);
}

static void test_truncated_shard_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    char path[512];
    make_checkpoint(fixture);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    format_path(path, sizeof path, fixture->source, "model-00001-of-00002.safetensors");
    assert_int_equal(truncate(path, 5000), 0);
    assert_true(unshard_export(checkpoint, NULL, fixture->target, NULL, NULL, NULL, &error) < 0);
    assert_string_equal(error.code, "truncated");
    assert_non_null(strstr(error.message, "model-00001-of-00002.safetensors"));
    assert_int_equal(error.offset, 5000);
    assert_false(exists(fixture, "model.safetensors"));
    assert_true(exists(fixture, "config.json") && exists(fixture, "tokenizer/vocab.txt"));
    assert_no_temporary_files(fixture->target);
    unshard_checkpoint_close(checkpoint);
}

static void test_changed_shard_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    char path[512];
    make_checkpoint(fixture);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    format_path(path, sizeof path, fixture->source, "model-00002-of-00002.safetensors");
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_true(unshard_export(checkpoint, NULL, fixture->target, NULL, NULL, NULL, &error) < 0);
    assert_string_equal(error.code, "changed");
    assert_false(exists(fixture, "model.safetensors"));
    assert_true(exists(fixture, "config.json"));
    unshard_checkpoint_close(checkpoint);
}

/* ---- a shard that is replaced in the middle ----------------------------------------------------
 * Linked in place of the library's functions, which they call. */

static _Atomic(const struct fixture *) to_replace; /* its first shard, when its end is read */
static atomic_bool noticed;                        /* by the watcher */

int __real_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error);
int __wrap_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error);
int __real_source_poll(struct source *source, uint32_t file, bool closely);
int __wrap_source_poll(struct source *source, uint32_t file, bool closely);

int __wrap_source_poll(struct source *source, uint32_t file, bool closely)
{
    int result = __real_source_poll(source, file, closely);
    if (result > 0)
        atomic_store(&noticed, true);
    return result;
}

/* The export may end at once then: there is no other round. */
static void wait_for_watcher(void)
{
    struct timespec now, until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    do {
        sched_yield();
        clock_gettime(CLOCK_MONOTONIC, &now);
        assert_true(now.tv_sec < until.tv_sec + 30);
    } while (!atomic_load(&noticed));
}

static void replace_first_shard(const struct fixture *fixture)
{
    char from[512], to[512];
    write_shard(fixture, "new", "a", LARGE, 9);
    format_path(from, sizeof from, fixture->source, "new");
    format_path(to, sizeof to, fixture->source, "model-00001-of-00002.safetensors");
    assert_int_equal(rename(from, to), 0);
    wait_for_watcher();
}

int __wrap_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error)
{
    const struct fixture *fixture =
        offset >= UINT64_C(8) * 1024 * 1024 ? atomic_exchange(&to_replace, NULL) : NULL;
    if (fixture)
        replace_first_shard(fixture);
    return __real_source_read(source, file, offset, buffer, length, cached, error);
}

static void test_no_mixture_of_two_shards(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    struct unshard_fetch_options options = {.jobs = 1};
    make_checkpoint(fixture);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    atomic_store(&to_replace, fixture);
    assert_true(unshard_export(checkpoint, &options, fixture->target, NULL, NULL, NULL, &error) <
                0);
    assert_null(atomic_load(&to_replace));
    assert_string_equal(error.code, "changed");
    assert_non_null(strstr(error.message, "model-00001-of-00002.safetensors"));
    assert_false(exists(fixture, "model.safetensors"));
    assert_no_temporary_files(fixture->target);
    unshard_checkpoint_close(checkpoint);
}

static void test_failed_component(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    char path[512];
    make_checkpoint(fixture);
    format_path(path, sizeof path, fixture->source, "model-00002-of-00002.safetensors");
    assert_int_equal(unlink(path), 0);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    assert_true(unshard_export(checkpoint, NULL, fixture->target, NULL, NULL, NULL, &error) < 0);
    assert_non_null(strstr(error.message, "model-00002-of-00002.safetensors"));
    assert_true(exists(fixture, "config.json") && exists(fixture, "tokenizer/vocab.txt"));
    unshard_checkpoint_close(checkpoint);
}

/* ---- an export that is gone on with ------------------------------------------------------------
 */

#define JOURNAL ".unshard-export"

static int try_export(const struct fixture *fixture, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    int result = unshard_export(checkpoint, NULL, fixture->target, NULL, NULL, NULL, error);
    unshard_checkpoint_close(checkpoint);
    return result;
}

/* All but the merged file is written. */
static void export_in_part(const struct fixture *fixture)
{
    struct unshard_error error = {0};
    char path[512], aside[512];
    make_checkpoint(fixture);
    format_path(path, sizeof path, fixture->source, "model-00002-of-00002.safetensors");
    format_path(aside, sizeof aside, fixture->folder, "aside");
    assert_int_equal(rename(path, aside), 0);
    assert_true(try_export(fixture, &error) < 0);
    assert_true(exists(fixture, "tokenizer/vocab.txt") && exists(fixture, JOURNAL));
    assert_false(exists(fixture, "model.safetensors"));
    assert_int_equal(rename(aside, path), 0);
}

static void go_on(const struct fixture *fixture)
{
    struct unshard_error error = {0};
    if (try_export(fixture, &error) < 0)
        fail_msg("%s", error.message);
    check_merged(fixture);
    assert_false(exists(fixture, JOURNAL));
    assert_no_temporary_files(fixture->target);
}

static ino_t inode_of(const struct fixture *fixture, const char *name)
{
    char path[512];
    struct stat status;
    format_path(path, sizeof path, fixture->target, name);
    assert_int_equal(lstat(path, &status), 0);
    return status.st_ino;
}

static void put(const struct fixture *fixture, const char *name, const char *text, size_t size,
                const char *mode)
{
    char path[512];
    format_path(path, sizeof path, fixture->target, name);
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void assert_text(const struct fixture *fixture, const char *name, const char *text)
{
    char path[512], found[64] = "";
    format_path(path, sizeof path, fixture->target, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    found[fread(found, 1, sizeof found - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(found, text);
}

static void test_what_is_finished_is_kept(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    export_in_part(fixture);
    ino_t kept = inode_of(fixture, "tokenizer/vocab.txt"), empty = inode_of(fixture, "empty.txt");
    go_on(fixture);
    assert_int_equal(inode_of(fixture, "tokenizer/vocab.txt"), kept);
    assert_int_equal(inode_of(fixture, "empty.txt"), empty);
    assert_int_equal(try_export(fixture, &error), -ENOTEMPTY);
}

static void test_what_has_changed_is_written_again(void **state)
{
    struct fixture *fixture = *state;
    char path[512];
    struct stat status;
    export_in_part(fixture);
    write_text(fixture, "config.json", "{\"new\":1}\n");
    /* With its old size and time: only the time of the change tells. */
    format_path(path, sizeof path, fixture->target, "tokenizer/vocab.txt");
    assert_int_equal(stat(path, &status), 0);
    put(fixture, "tokenizer/vocab.txt", "x y z\n", 6, "w");
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    format_path(path, sizeof path, fixture->source, "empty.txt");
    assert_int_equal(unlink(path), 0);
    go_on(fixture);
    assert_text(fixture, "config.json", "{\"new\":1}\n");
    assert_text(fixture, "tokenizer/vocab.txt", "a b c\n");
    assert_false(exists(fixture, "empty.txt"));
}

static void test_files_of_others_stay(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    char path[512];
    export_in_part(fixture);
    put(fixture, "notes.txt", "mine", 4, "w");
    put(fixture, "model.safetensors", "mine", 4, "w");
    assert_int_equal(try_export(fixture, &error), -EEXIST);
    assert_non_null(strstr(error.message, "model.safetensors: is in the target, and not of"));
    assert_text(fixture, "model.safetensors", "mine");
    format_path(path, sizeof path, fixture->target, "model.safetensors");
    assert_int_equal(unlink(path), 0);
    go_on(fixture);
    assert_text(fixture, "notes.txt", "mine");
}

static void test_half_written_files_are_cleared(void **state)
{
    static const char records[] = "t model.safetensors\0t gone/x.bin\0t ../victim\0"
                                  "b 1 4 0 ../victim\0b 1 4 0 /tmp\0rubbish\0t cut";
    struct fixture *fixture = *state;
    char path[512];
    export_in_part(fixture);
    put(fixture, ".model.safetensors.unshard-tmp", "half", 4, "w");
    put(fixture, "../.victim.unshard-tmp", "mine", 4, "w");
    put(fixture, JOURNAL, records, sizeof records - 1, "a");
    go_on(fixture);
    format_path(path, sizeof path, fixture->folder, ".victim.unshard-tmp");
    assert_int_equal(access(path, F_OK), 0);
}

static void test_no_symlink_is_followed(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    char path[512], aside[512];
    export_in_part(fixture);
    format_path(path, sizeof path, fixture->target, "tokenizer");
    format_path(aside, sizeof aside, fixture->folder, "tokenizer");
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink("../tokenizer", path), 0);
    assert_true(try_export(fixture, &error) < 0);
    assert_non_null(strstr(error.message, "tokenizer"));
}

static void test_only_the_same_export_is_gone_on_with(void **state)
{
    struct fixture *fixture = *state, other = *fixture;
    struct unshard_error error = {0};
    export_in_part(fixture);
    format_path(other.source, sizeof other.source, fixture->folder, "other");
    assert_int_equal(rename(fixture->source, other.source), 0);
    assert_int_equal(try_export(&other, &error), -EEXIST);
    assert_string_equal(error.code, "other-export");
    assert_non_null(strstr(error.message, fixture->source));
    put(fixture, JOURNAL, "rubbish", 7, "w");
    assert_int_equal(try_export(&other, &error), -ENOTEMPTY);
    assert_text(fixture, JOURNAL, "rubbish");
}

static void test_cancelled(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    int cancelled = 1;
    make_checkpoint(fixture);
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    assert_int_equal(
        unshard_export(checkpoint, NULL, fixture->target, &cancelled, NULL, NULL, &error),
        -ECANCELED);
    assert_no_temporary_files(fixture->target);
    unshard_checkpoint_close(checkpoint);
    go_on(fixture);
}

static void test_bad_target(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {0};
    write_text(fixture, "config.json", "{}\n");
    struct unshard_checkpoint *checkpoint = open_checkpoint(fixture);
    char path[512];
    format_path(path, sizeof path, fixture->folder, "no/such/parent");
    assert_int_equal(unshard_export(checkpoint, NULL, path, NULL, NULL, NULL, &error), -ENOENT);
    assert_non_null(strstr(error.message, path));
    format_path(path, sizeof path, fixture->source, "config.json");
    assert_int_equal(unshard_export(checkpoint, NULL, path, NULL, NULL, NULL, &error), -ENOTDIR);
    unshard_checkpoint_close(checkpoint);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole_tree),
        TEST(test_truncated_shard_is_named),
        TEST(test_changed_shard_is_refused),
        TEST(test_no_mixture_of_two_shards),
        TEST(test_failed_component),
        TEST(test_what_is_finished_is_kept),
        TEST(test_what_has_changed_is_written_again),
        TEST(test_files_of_others_stay),
        TEST(test_half_written_files_are_cleared),
        TEST(test_no_symlink_is_followed),
        TEST(test_only_the_same_export_is_gone_on_with),
        TEST(test_cancelled),
        TEST(test_bad_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
