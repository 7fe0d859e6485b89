/* SPDX-License-Identifier: MIT
 *
 * More files than descriptors: a few are open at a time, what is read stays open, what is opened
 * again must be what it was, and a shortage is waited out. */
#include "store/open_files.h"
#include "support/safetensors_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

enum { FILES = 12, MOST = 3 };

struct setting {
    char *root;
    struct unshard_checkpoint *checkpoint;
    struct open_files *files;
};

static const char *name_of(unsigned i)
{
    static char name[8];
    snprintf(name, sizeof name, "%02u.txt", i);
    return name;
}

static int setup(void **state)
{
    struct setting *setting = calloc(1, sizeof *setting);
    struct unshard_error error;
    *state = setting;
    setting->root = fixture_directory();
    for (unsigned i = 0; i < FILES; i++)
        fixture_text(setting->root, name_of(i), "the first content");
    if (unshard_checkpoint_open(setting->root, NULL, &setting->checkpoint, &error) != 0)
        return -1;
    return open_files_create(setting->checkpoint, MOST, &setting->files);
}

static int teardown(void **state)
{
    struct setting *setting = *state;
    open_files_free(setting->files);
    unshard_checkpoint_close(setting->checkpoint);
    fixture_remove(setting->root);
    free(setting);
    return 0;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static uint32_t number_of(const struct setting *setting, unsigned i)
{
    for (uint32_t n = 0; n < setting->checkpoint->file_count; n++)
        if (strcmp(setting->checkpoint->files[n].path, name_of(i)) == 0)
            return n;
    fail_msg("no file %u", i);
    return 0;
}

static struct open_file *pin(const struct setting *setting, unsigned i)
{
    struct open_file *file = NULL;
    struct unshard_error error;
    if (open_files_pin(setting->files, number_of(setting, i), 0, &file, &error) != 0)
        fail_msg("%s", error.message);
    return file;
}

static void touch(const struct setting *setting, unsigned i)
{
    open_files_unpin(setting->files, pin(setting, i), 0);
}

static const char *code_of_pin(const struct setting *setting, unsigned i)
{
    static struct unshard_error error;
    struct open_file *file;
    if (open_files_pin(setting->files, number_of(setting, i), 0, &file, &error) != 0)
        return error.code;
    open_files_unpin(setting->files, file, 0);
    return "";
}

static void only_so_many_are_open(void **state)
{
    struct setting *setting = *state;
    unsigned before = descriptors();
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < FILES; i++) {
            touch(setting, i);
            assert_in_range(descriptors() - before, 1, 2 * MOST);
        }
}

/* A file that was deleted tells whether it is still open. */
static void the_one_read_longest_ago_is_closed(void **state)
{
    struct setting *setting = *state;
    for (unsigned i = 0; i < MOST; i++)
        touch(setting, i);
    touch(setting, 0);
    touch(setting, MOST); /* in the place of 1 */
    assert_int_equal(unlink(fixture_path(setting->root, name_of(0))), 0);
    assert_int_equal(unlink(fixture_path(setting->root, name_of(1))), 0);
    assert_string_equal(code_of_pin(setting, 0), "");
    assert_string_equal(code_of_pin(setting, 1), "missing");
}

static void what_is_read_stays_open(void **state)
{
    struct setting *setting = *state;
    char byte;
    struct open_file *file = pin(setting, 0);
    assert_int_equal(unlink(fixture_path(setting->root, name_of(0))), 0);
    for (unsigned i = 1; i < FILES; i++)
        touch(setting, i);
    assert_int_equal(pread(file->buffered, &byte, 1, 0), 1);
    assert_ptr_equal(pin(setting, 0), file);
    open_files_unpin(setting->files, file, 0);
    open_files_unpin(setting->files, file, 0);
}

static struct open_file *pin_at(const struct setting *setting, unsigned i, uint64_t offset)
{
    struct open_file *file = NULL;
    struct unshard_error error;
    if (open_files_pin(setting->files, number_of(setting, i), offset, &file, &error) != 0)
        fail_msg("%s", error.message);
    return file;
}

/* Two who read at once have a handle each, and who reads on gets the one that was left there. */
static void who_reads_has_a_handle_to_himself(void **state)
{
    struct setting *setting = *state;
    struct open_file *first = pin_at(setting, 0, 0), *second = pin_at(setting, 0, 100);
    assert_ptr_not_equal(first, second);
    assert_int_not_equal(first->buffered, second->buffered);
    open_files_unpin(setting->files, second, 200);
    open_files_unpin(setting->files, first, 100);
    for (uint64_t at = 100; at < 1000; at += 100) {
        struct open_file *other = pin_at(setting, 0, at + 100), *file = pin_at(setting, 0, at);
        assert_ptr_equal(file, first);
        assert_ptr_equal(other, second);
        open_files_unpin(setting->files, file, at + 100);
        open_files_unpin(setting->files, other, at + 200);
    }
}

/* Where no other handle can be had, what is open is shared. */
static void handles_are_shared_when_there_are_no_more(void **state)
{
    struct setting *setting = *state;
    struct open_file *pinned[MOST], *more[2];
    unsigned before = descriptors();
    for (unsigned i = 0; i < MOST; i++)
        pinned[i] = pin_at(setting, 0, i);
    for (unsigned i = 0; i < 2; i++)
        more[i] = pin_at(setting, 0, 1000);
    assert_ptr_not_equal(more[0], more[1]);
    assert_in_range(descriptors() - before, MOST, 2 * MOST);
    for (unsigned i = 0; i < 2; i++)
        open_files_unpin(setting->files, more[i], 0);
    for (unsigned i = 0; i < MOST; i++)
        open_files_unpin(setting->files, pinned[i], 0);
}

static void idle_handles_are_closed_but_for_one(void **state)
{
    struct setting *setting = *state;
    unsigned before = descriptors();
    struct open_file *first = pin_at(setting, 0, 0), *second = pin_at(setting, 0, 100);
    touch(setting, 1);
    open_files_unpin(setting->files, second, 200);
    unsigned open = descriptors() - before;
    open_files_close_idle(setting->files, UINT64_MAX);
    assert_int_equal(descriptors() - before, open - open / 3);
    open_files_unpin(setting->files, first, 100);
    open_files_close_idle(setting->files, UINT64_MAX);
    assert_int_equal(descriptors() - before, open - open / 3);
    assert_ptr_equal(pin_at(setting, 0, 100), first);
    open_files_unpin(setting->files, first, 0);
    open_files_close_idle(setting->files, 0); /* none has been idle for that long */
    assert_int_equal(descriptors() - before, open - open / 3);
}

static void replace(const struct setting *setting, unsigned i, const char *content)
{
    char *path = strdup(fixture_path(setting->root, name_of(i)));
    fixture_text(setting->root, "new", content);
    assert_int_equal(rename(fixture_path(setting->root, "new"), path), 0);
    free(path);
}

static void another_file_is_not_taken_for_it(void **state)
{
    struct setting *setting = *state;
    struct unshard_error error;
    touch(setting, 0);
    for (unsigned i = 1; i <= MOST; i++)
        touch(setting, i);
    replace(setting, 0, "another one, long");
    assert_string_equal(code_of_pin(setting, 0), "changed");
    assert_int_equal(open_files_renew(setting->files, number_of(setting, 0), &error), 0);
    assert_string_equal(code_of_pin(setting, 0), "");
}

static void who_reads_the_old_content_keeps_it(void **state)
{
    struct setting *setting = *state;
    struct unshard_error error;
    char word[4] = "";
    unsigned before = descriptors();
    struct open_file *old = pin(setting, 0);
    replace(setting, 0, "new");
    assert_int_equal(open_files_renew(setting->files, number_of(setting, 0), &error), 0);
    struct open_file *new = pin(setting, 0);
    assert_ptr_not_equal(new, old);
    assert_int_equal(pread(old->buffered, word, 3, 0), 3);
    assert_string_equal(word, "the");
    assert_int_equal(pread(new->buffered, word, 3, 0), 3);
    assert_string_equal(word, "new");
    open_files_unpin(setting->files, old, 0);
    open_files_unpin(setting->files, new, 0);
    assert_in_range(descriptors() - before, 1, 2);
}

static void a_symlink_that_leads_out_is_not_followed_at_a_later_open(void **state)
{
    struct setting *setting = *state;
    char *path = strdup(fixture_path(setting->root, name_of(0)));
    touch(setting, 0);
    for (unsigned i = 1; i <= MOST; i++)
        touch(setting, i);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_string_equal(code_of_pin(setting, 0), "read-error");
    free(path);
}

struct waiting {
    const struct setting *setting;
    pthread_t thread;
    atomic_bool done;
    char code[16];
};

static void *pin_another(void *argument)
{
    struct waiting *waiting = argument;
    struct unshard_error error = {.code = ""};
    struct open_file *file;
    if (open_files_pin(waiting->setting->files, number_of(waiting->setting, MOST), 0, &file,
                       &error) == 0)
        open_files_unpin(waiting->setting->files, file, 0);
    snprintf(waiting->code, sizeof waiting->code, "%s", error.code);
    atomic_store(&waiting->done, true);
    return NULL;
}

static void pause_ms(long milliseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

static void start(struct waiting *waiting, const struct setting *setting)
{
    *waiting = (struct waiting){.setting = setting};
    assert_int_equal(pthread_create(&waiting->thread, NULL, pin_another, waiting), 0);
    pause_ms(20); /* so that it waits; should it be late, the test shows less */
    assert_false(atomic_load(&waiting->done));
}

static void all_pinned_is_waited_out(void **state)
{
    struct setting *setting = *state;
    struct open_file *pinned[MOST];
    struct waiting waiting;
    for (unsigned i = 0; i < MOST; i++)
        pinned[i] = pin(setting, i);
    start(&waiting, setting);
    open_files_unpin(setting->files, pinned[1], 0);
    pthread_join(waiting.thread, NULL);
    assert_string_equal(waiting.code, "");
    open_files_unpin(setting->files, pinned[0], 0);
    open_files_unpin(setting->files, pinned[2], 0);
}

static void a_cancelled_one_does_not_wait(void **state)
{
    struct setting *setting = *state;
    struct open_file *pinned[MOST];
    struct waiting waiting;
    for (unsigned i = 0; i < MOST; i++)
        pinned[i] = pin(setting, i);
    start(&waiting, setting);
    open_files_cancel(setting->files);
    pthread_join(waiting.thread, NULL);
    assert_string_equal(waiting.code, "cancelled");
    for (unsigned i = 0; i < MOST; i++)
        open_files_unpin(setting->files, pinned[i], 0);
}

/* No descriptor is left: nothing can be opened until the limit is what it was. */
static struct rlimit exhaust(void)
{
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    return before;
}

static void a_shortage_is_waited_out(void **state)
{
    struct setting *setting = *state;
    struct waiting waiting;
    struct rlimit before = exhaust();
    start(&waiting, setting);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    pthread_join(waiting.thread, NULL);
    assert_string_equal(waiting.code, "");
}

static void a_shortage_can_be_cancelled(void **state)
{
    struct setting *setting = *state;
    struct waiting waiting;
    struct rlimit before = exhaust();
    start(&waiting, setting);
    open_files_cancel(setting->files);
    pthread_join(waiting.thread, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_string_equal(waiting.code, "cancelled");
}

static void *restore_limit(void *argument)
{
    pause_ms(60);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, argument), 0);
    return NULL;
}

static void discovery_waits_a_shortage_out(void **state)
{
    (void)state;
    pthread_t thread;
    struct unshard_error error;
    struct unshard_checkpoint *checkpoint;
    char *root = fixture_directory();
    fixture_text(root, "sub/model.safetensors", "not a header");
    int spare = dup(0); /* for the source; below it nothing */
    struct rlimit before = exhaust(), one = before;
    one.rlim_cur = (rlim_t)spare + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &one), 0);
    assert_int_equal(pthread_create(&thread, NULL, restore_limit, &before), 0);
    close(spare);
    int result = unshard_checkpoint_open(root, NULL, &checkpoint, &error);
    pthread_join(thread, NULL);
    assert_int_equal(result, 0);
    assert_int_equal(checkpoint->component_count, 1);
    assert_int_equal(checkpoint->note_count, 0);
    assert_int_not_equal(checkpoint->components[0].error.errno_value, EMFILE);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void the_limit_leaves_room(void **state)
{
    (void)state;
    struct rlimit before, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t soft = 64; soft <= before.rlim_max && soft <= 1 << 20; soft *= 4) {
        now = (struct rlimit){soft, before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
        assert_in_range(open_files_limit(), 4, 1024);
        assert_true(2 * open_files_limit() < soft);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_so_many_are_open, setup, teardown),
        cmocka_unit_test_setup_teardown(the_one_read_longest_ago_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_read_stays_open, setup, teardown),
        cmocka_unit_test_setup_teardown(who_reads_has_a_handle_to_himself, setup, teardown),
        cmocka_unit_test_setup_teardown(handles_are_shared_when_there_are_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_handles_are_closed_but_for_one, setup, teardown),
        cmocka_unit_test_setup_teardown(another_file_is_not_taken_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(who_reads_the_old_content_keeps_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_symlink_that_leads_out_is_not_followed_at_a_later_open,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(all_pinned_is_waited_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_one_does_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shortage_is_waited_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shortage_can_be_cancelled, setup, teardown),
        cmocka_unit_test(discovery_waits_a_shortage_out),
        cmocka_unit_test(the_limit_leaves_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
