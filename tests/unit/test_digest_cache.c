/* SPDX-License-Identifier: MIT
 *
 * The cache of chunk digests: what is stored is found again; what is cut, changed, somebody else's
 * or of another file is not, and goes; writers and readers at the same time see whole entries. */
#include "digest/digest_cache.h"
#include "digest/digest_cache_entry.h"
#include "support/safetensors_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

#define CHUNK (UINT64_C(2) << 20)

struct fixture {
    char *root, *folder;
    struct digest_cache *cache;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->root = fixture_directory();
    assert_true(asprintf(&fixture->folder, "%s/chunk-digests", fixture->root) > 0);
    setenv("UNSHARD_CACHE_DIR", fixture->root, 1);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    digest_cache_close(fixture->cache);
    fixture_remove(fixture->root);
    free(fixture->folder);
    free(fixture);
    return 0;
}

static struct digest_cache_key make_key(unsigned number)
{
    struct digest_cache_key key = {.device = 7,
                                   .inode = number,
                                   .size = 2 * CHUNK + 1,
                                   .mtime_ns = 123456789012345,
                                   .whole = {.algorithm = DIGEST_SHA256}};
    memset(key.whole.bytes, (int)number, 32);
    return key;
}

static const uint8_t chunks[3 * CACHE_ENTRY_DIGEST] = {1, 2, [17] = 3, [40] = 255};
static const struct secret no_secret;

static void store(struct fixture *fixture, const struct digest_cache_key *key)
{
    struct unshard_error error = {0};
    if (digest_cache_store(fixture->cache, key, CHUNK, chunks, 3, &error) != 0)
        fail_msg("%s", error.message);
}

/* Whether it is found; what is found must be right. */
static bool found(struct fixture *fixture, const struct digest_cache_key *key)
{
    uint8_t *digests = NULL;
    uint64_t chunk_bytes = 0;
    uint32_t count = 0;
    int result = digest_cache_load(fixture->cache, key, &chunk_bytes, &digests, &count);
    if (result != 0) {
        assert_int_equal(result, -ENOENT);
        return false;
    }
    assert_int_equal(chunk_bytes, CHUNK);
    assert_int_equal(count, 3);
    assert_memory_equal(digests, chunks, sizeof chunks);
    free(digests);
    return true;
}

static unsigned count_files(const struct fixture *fixture)
{
    DIR *directory = opendir(fixture->folder);
    unsigned count = 0;
    assert_non_null(directory);
    for (const struct dirent *item; (item = readdir(directory)) != NULL;)
        count += item->d_name[0] != '.' || strncmp(item->d_name, ".new-", 5) == 0;
    closedir(directory);
    return count;
}

/* The path of the only entry. */
static const char *entry_path(const struct fixture *fixture)
{
    static char path[PATH_MAX];
    DIR *directory = opendir(fixture->folder);
    assert_non_null(directory);
    path[0] = '\0';
    for (const struct dirent *item; (item = readdir(directory)) != NULL;)
        if (item->d_name[0] != '.')
            snprintf(path, sizeof path, "%s/%s", fixture->folder, item->d_name);
    closedir(directory);
    assert_true(path[0] != '\0');
    return path;
}

static void what_is_stored_is_found(void **state)
{
    struct digest_cache_key one = make_key(1), two = make_key(2);
    struct stat status;
    assert_false(found(*state, &one));
    store(*state, &one);
    store(*state, &two);
    assert_true(found(*state, &one));
    assert_true(found(*state, &two));
    assert_int_equal(count_files(*state), 2);
    assert_int_equal(stat(entry_path(*state), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(stat(((struct fixture *)*state)->folder, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
}

static void another_file_is_not_served_by_it(void **state)
{
    struct digest_cache_key one = make_key(1);
    store(*state, &one);
    struct digest_cache_key other = one;
    other.device++;
    assert_false(found(*state, &other));
    other = one;
    other.inode++;
    assert_false(found(*state, &other));
    other = one;
    other.whole.bytes[31] ^= 1;
    assert_false(found(*state, &other));
    other = one;
    other.whole.algorithm = DIGEST_SHA512;
    assert_false(found(*state, &other));
    assert_true(found(*state, &one));
}

/* The same file with another size or time: what was kept is of no use any more. */
static void a_changed_file_loses_its_entry(void **state)
{
    struct digest_cache_key one = make_key(1), other = one;
    store(*state, &one);
    other.mtime_ns++;
    assert_false(found(*state, &other));
    assert_int_equal(count_files(*state), 0);
    store(*state, &one);
    other = one;
    other.ctime_ns++;
    assert_false(found(*state, &other));
    assert_int_equal(count_files(*state), 0);
    store(*state, &one);
    other = one;
    other.size++;
    assert_false(found(*state, &other));
    assert_false(found(*state, &one));
    store(*state, &one);
    store(*state, &other);
    assert_int_equal(count_files(*state), 1);
    assert_true(found(*state, &other));
}

static void an_entry_cut_anywhere_is_removed(void **state)
{
    struct digest_cache_key key = make_key(1);
    store(*state, &key);
    struct stat status;
    assert_int_equal(stat(entry_path(*state), &status), 0);
    for (off_t length = 0; length < status.st_size; length++) {
        store(*state, &key);
        assert_int_equal(truncate(entry_path(*state), length), 0);
        assert_false(found(*state, &key));
        assert_int_equal(count_files(*state), 0);
    }
    store(*state, &key);
    assert_int_equal(truncate(entry_path(*state), status.st_size + 1), 0);
    assert_false(found(*state, &key));
}

static void flip(const char *path, off_t byte, int bit)
{
    unsigned char value;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &value, 1, byte), 1);
    value ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(fd, &value, 1, byte), 1);
    close(fd);
}

static void an_entry_with_any_flipped_bit_is_removed(void **state)
{
    struct digest_cache_key key = make_key(1);
    struct stat status;
    store(*state, &key);
    assert_int_equal(stat(entry_path(*state), &status), 0);
    assert_int_equal(status.st_size, CACHE_ENTRY_HEADER + 4 * CACHE_ENTRY_DIGEST);
    for (off_t byte = 0; byte < status.st_size; byte++) {
        store(*state, &key);
        flip(entry_path(*state), byte, (int)(byte % 8));
        assert_false(found(*state, &key));
        assert_int_equal(count_files(*state), 0);
    }
}

static void entries_that_others_could_write_are_not_believed(void **state)
{
    struct digest_cache_key key = make_key(1);
    store(*state, &key);
    assert_int_equal(chmod(entry_path(*state), 0620), 0);
    assert_false(found(*state, &key));
    store(*state, &key);
    assert_int_equal(chmod(entry_path(*state), 0602), 0);
    assert_false(found(*state, &key));
    if (geteuid() == 0) {
        store(*state, &key);
        assert_int_equal(chown(entry_path(*state), 12345, (gid_t)-1), 0);
        assert_false(found(*state, &key));
    }
    /* A symlink in its place is not followed. */
    store(*state, &key);
    char path[PATH_MAX], aside[PATH_MAX];
    snprintf(path, sizeof path, "%s", entry_path(*state));
    snprintf(aside, sizeof aside, "%s/aside", ((struct fixture *)*state)->root);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    assert_false(found(*state, &key));
    assert_int_equal(count_files(*state), 0);
}

static void reopen(struct fixture *fixture)
{
    digest_cache_close(fixture->cache);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), 0);
}

/* Whoever can put an entry there, and does not know the secret, is not believed. */
static void entries_are_made_with_the_secret(void **state)
{
    struct fixture *fixture = *state;
    struct digest_cache_key key = make_key(1);
    char path[PATH_MAX], aside[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "%s/.secret", fixture->folder);
    snprintf(aside, sizeof aside, "%s/aside", fixture->root);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, SECRET_BYTES);
    store(fixture, &key);
    reopen(fixture);
    assert_true(found(fixture, &key));
    assert_int_equal(unlink(path), 0);
    reopen(fixture);
    assert_false(found(fixture, &key));
    assert_int_equal(chmod(path, 0640), 0);
    digest_cache_close(fixture->cache);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), -EPERM);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, SECRET_BYTES - 1), 0);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), -EINVAL);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), -ELOOP);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(digest_cache_open(0, &fixture->cache, NULL), 0);
}

static void a_directory_that_others_could_write_to_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct digest_cache *cache = NULL;
    struct unshard_error error = {0};
    assert_int_equal(chmod(fixture->folder, 0770), 0);
    assert_int_equal(digest_cache_open(0, &cache, &error), -EPERM);
    assert_string_equal(error.code, "no-cache-directory");
    assert_null(cache);
    assert_int_equal(chmod(fixture->folder, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(fixture->folder, 12345, (gid_t)-1), 0);
        assert_int_equal(digest_cache_open(0, &cache, &error), -EPERM);
        assert_int_equal(chown(fixture->folder, 0, (gid_t)-1), 0);
    }
    setenv("UNSHARD_CACHE_DIR", "relative", 1);
    assert_int_equal(digest_cache_open(0, &cache, &error), -ENOENT);
    setenv("UNSHARD_CACHE_DIR", "/proc/nowhere", 1);
    assert_true(digest_cache_open(0, &cache, &error) < 0);
    assert_string_equal(error.code, "no-cache-directory");
    /* Without a cache nothing is found and nothing stored, and that is no error. */
    struct digest_cache_key key = make_key(1);
    uint8_t *digests;
    uint64_t chunk_bytes;
    uint32_t count;
    assert_int_equal(digest_cache_store(NULL, &key, CHUNK, chunks, 3, &error), 0);
    assert_int_equal(digest_cache_load(NULL, &key, &chunk_bytes, &digests, &count), -ENOENT);
    digest_cache_close(NULL);
}

static void the_directory_comes_from_the_environment(void **state)
{
    struct fixture *fixture = *state;
    struct digest_cache *cache;
    struct stat status;
    char path[PATH_MAX], home[PATH_MAX];
    const char *old_home = getenv("HOME");
    snprintf(home, sizeof home, "%s", old_home != NULL ? old_home : "");
    unsetenv("UNSHARD_CACHE_DIR");
    setenv("XDG_CACHE_HOME", fixture->root, 1);
    assert_int_equal(digest_cache_open(0, &cache, NULL), 0);
    digest_cache_close(cache);
    snprintf(path, sizeof path, "%s/unshard/chunk-digests", fixture->root);
    assert_int_equal(stat(path, &status), 0);
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    setenv("HOME", fixture->root, 1);
    assert_int_equal(digest_cache_open(0, &cache, NULL), 0);
    digest_cache_close(cache);
    snprintf(path, sizeof path, "%s/.cache/unshard/chunk-digests", fixture->root);
    assert_int_equal(stat(path, &status), 0);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", home, 1);
}

static void numbers_that_do_not_fit_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct digest_cache_key key = make_key(1);
    assert_int_equal(digest_cache_store(fixture->cache, &key, CHUNK, chunks, 2, NULL), -EINVAL);
    assert_int_equal(digest_cache_store(fixture->cache, &key, CHUNK - 1, chunks, 3, NULL), -EINVAL);
    assert_int_equal(digest_cache_store(fixture->cache, &key, 0, chunks, 3, NULL), -EINVAL);
    key.whole.algorithm = DIGEST_NONE;
    assert_int_equal(digest_cache_store(fixture->cache, &key, CHUNK, chunks, 3, NULL), -EINVAL);
    key.size = UINT64_MAX;
    key.whole.algorithm = DIGEST_SHA256;
    assert_int_equal(digest_cache_store(fixture->cache, &key, CHUNK, chunks, 3, NULL), -EINVAL);
    assert_int_equal(count_files(fixture), 0);
}

static void the_least_recently_used_go_first(void **state)
{
    struct fixture *fixture = *state;
    size_t entry = CACHE_ENTRY_HEADER + 4 * CACHE_ENTRY_DIGEST;
    struct digest_cache_key keys[5];
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    digest_cache_close(fixture->cache);
    assert_int_equal(digest_cache_open(3 * entry, &fixture->cache, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        keys[i] = make_key(i + 1);
        store(fixture, &keys[i]);
        const char *path = fixture->folder;
        DIR *directory = opendir(path);
        assert_non_null(directory);
        /* Each older than the next: what was there already grows older by one second. */
        for (const struct dirent *item; (item = readdir(directory)) != NULL;) {
            struct stat status;
            if (item->d_name[0] == '.')
                continue;
            assert_int_equal(fstatat(dirfd(directory), item->d_name, &status, 0), 0);
            old[1].tv_sec = status.st_mtime > 2000 ? 1000 : status.st_mtime - 1;
            assert_int_equal(utimensat(dirfd(directory), item->d_name, old, 0), 0);
        }
        closedir(directory);
    }
    assert_true(found(fixture, &keys[0])); /* the oldest, but used just now */
    fixture_text(fixture->folder, "foreign", "not an entry");
    keys[3] = make_key(4);
    store(fixture, &keys[3]);
    assert_true(found(fixture, &keys[0]));
    assert_false(found(fixture, &keys[1]));
    assert_true(found(fixture, &keys[2]));
    assert_true(found(fixture, &keys[3]));
    assert_int_equal(count_files(fixture), 4);
    digest_cache_close(fixture->cache);
    keys[4] = make_key(5);
    assert_int_equal(digest_cache_open(entry - 1, &fixture->cache, NULL), 0);
    assert_int_equal(digest_cache_store(fixture->cache, &keys[4], CHUNK, chunks, 3, NULL), -EFBIG);
}

/* It is not looked through each time: at its limit it has a little more or less than that. */
static void it_stays_about_as_large_as_it_may_be(void **state)
{
    struct fixture *fixture = *state;
    size_t entry = CACHE_ENTRY_HEADER + 4 * CACHE_ENTRY_DIGEST, limit = 1 << 20;
    unsigned most = (unsigned)(limit / entry), count = 0;
    digest_cache_close(fixture->cache);
    assert_int_equal(digest_cache_open(limit, &fixture->cache, NULL), 0);
    for (unsigned i = 1; i <= 2 * most; i++) {
        struct digest_cache_key key = make_key(i);
        store(fixture, &key);
    }
    count = count_files(fixture);
    assert_in_range(count, most - most / 8, most + most / 16 + 1);
    struct digest_cache_key first = make_key(1), last = make_key(2 * most);
    assert_false(found(fixture, &first));
    assert_true(found(fixture, &last));
}

/* ---- the corpus --------------------------------------------------------------------------------
 */

static bool accepts(const char *path)
{
    struct digest_cache_key key = {.device = 1,
                                   .inode = 2,
                                   .size = 200000,
                                   .mtime_ns = 3,
                                   .whole = {.algorithm = DIGEST_SHA256}};
    uint8_t entry[1024];
    uint8_t digests[8 * CACHE_ENTRY_DIGEST];
    uint64_t chunk_bytes;
    uint32_t count;
    size_t length;
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t size = fread(entry, 1, sizeof entry - CACHE_ENTRY_DIGEST, file);
    (void)fclose(file);
    struct digest own = digest_of(DIGEST_KEYED, &no_secret, entry, size);
    memcpy(entry + size, own.bytes, CACHE_ENTRY_DIGEST);
    return size >= CACHE_ENTRY_HEADER &&
           cache_entry_check_header(entry, &key, &chunk_bytes, &count, &length) &&
           length == size + CACHE_ENTRY_DIGEST &&
           cache_entry_decode(entry, length, count, &no_secret, digests);
}

static void every_file_of_the_corpus_is_judged_by_its_name(void **state)
{
    static const char folder[] = "tests/corpus/digest_cache_entry";
    DIR *directory = opendir(folder);
    unsigned count = 0;
    (void)state;
    assert_non_null(directory);
    for (const struct dirent *item; (item = readdir(directory)) != NULL;) {
        char path[PATH_MAX];
        if (item->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, item->d_name);
        if (accepts(path) != (strncmp(item->d_name, "accept-", 7) == 0))
            fail_msg("%s", path);
        count++;
    }
    closedir(directory);
    assert_true(count >= 9);
}

/* ---- at the same time --------------------------------------------------------------------------
 */

#define ROUNDS 60

struct crowd {
    struct fixture *fixture;
    atomic_uint hits;
};

static void *reader(void *argument)
{
    struct crowd *crowd = argument;
    struct digest_cache_key key = make_key(1);
    for (unsigned i = 0; i < ROUNDS; i++)
        atomic_fetch_add(&crowd->hits, found(crowd->fixture, &key));
    return NULL;
}

static void *writer(void *argument)
{
    struct crowd *crowd = argument;
    struct digest_cache_key key = make_key(1);
    for (unsigned i = 0; i < ROUNDS; i++)
        store(crowd->fixture, &key);
    return NULL;
}

static void threads_and_processes_see_whole_entries(void **state)
{
    struct crowd crowd = {.fixture = *state};
    struct digest_cache_key key = make_key(1);
    pthread_t threads[4];
    store(*state, &key);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        writer(&crowd);
        _exit(0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? reader : writer, &crowd), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(atomic_load(&crowd.hits), 2 * ROUNDS);
    assert_int_equal(count_files(*state), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_stored_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_file_is_not_served_by_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_file_loses_its_entry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_entry_cut_anywhere_is_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_entry_with_any_flipped_bit_is_removed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(entries_that_others_could_write_are_not_believed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(entries_are_made_with_the_secret, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_directory_that_others_could_write_to_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_directory_comes_from_the_environment, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(numbers_that_do_not_fit_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_least_recently_used_go_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_stays_about_as_large_as_it_may_be, set_up, tear_down),
        cmocka_unit_test(every_file_of_the_corpus_is_judged_by_its_name),
        cmocka_unit_test_setup_teardown(threads_and_processes_see_whole_entries, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
