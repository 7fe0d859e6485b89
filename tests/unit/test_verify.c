/* SPDX-License-Identifier: MIT
 *
 * Checking all files of a checkpoint. */
#include "support/safetensors_fixture.h"
#include "tree/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#define SHA256 "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define MD5 "5d41402abc4b2a76b9719d911017c592"

static void see_total(void *context, const char *path, uint64_t done, uint64_t total)
{
    (void)path;
    (void)done;
    *(uint64_t *)context = total;
}

static struct unshard_report *verify(const char *root, uint64_t *total)
{
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_report *report = NULL;
    struct unshard_error error = {0};
    if (unshard_checkpoint_open(root, NULL, &checkpoint, &error) != 0 ||
        unshard_verify(checkpoint, NULL, see_total, total, &report, &error) != 0)
        fail_msg("%s", error.message);
    unshard_checkpoint_close(checkpoint);
    return report;
}

/* Two names of one file ask for different digests of it. */
static void a_file_is_read_once_for_all_its_names(void **state)
{
    (void)state;
    char *root = fixture_directory();
    uint64_t total = 0;
    fixture_text(root, "a.bin", "hello");
    assert_int_equal(link(fixture_path(root, "a.bin"), fixture_path(root, "sub/b.bin")), 0);
    fixture_text(root, "c.bin", "hello");
    fixture_text(root, "SHA256SUMS", SHA256 "  a.bin\n" SHA256 "  c.bin\n");
    fixture_text(root, "md5sum.txt", MD5 "  sub/b.bin\n");
    struct unshard_report *report = verify(root, &total);
    assert_int_equal(total, 2 * strlen("hello"));
    assert_int_equal(report->counts[UNSHARD_VERIFIED], 3);
    unshard_report_free(report);
    fixture_text(root, "a.bin", "HELLO");
    report = verify(root, &total);
    assert_int_equal(report->counts[UNSHARD_VERIFIED], 1);
    assert_int_equal(report->counts[UNSHARD_MISMATCH], 2);
    unshard_report_free(report);
    fixture_remove(root);
}

int main(void)
{
    setenv("UNSHARD_CACHE_DIR", "/dev/null/none", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_once_for_all_its_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
