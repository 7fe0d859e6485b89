/* SPDX-License-Identifier: MIT
 *
 * The journals of exports that did not come to their end, as they may lie in a target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "export/export_journal.h"
#include "support/corpus.h"
#include "support/journal_directory.h"

#define CORPUS "tests/corpus/export_journal"

static int parse(const char *data, size_t length, const char *name, struct unshard_error *error)
{
    struct export_journal journal;
    int fd = journal_directory(data, length);
    int result = export_journal_open(&journal, fd, name, "/models/x", error);
    if (result == 0) {
        assert_true(journal.resumed);
        export_journal_close(&journal, fd, true);
    }
    close(fd);
    return result;
}

static void test_corpus(void **state)
{
    (void)state;
    corpus_walk(CORPUS, parse, 5);
}

static void open_file(struct export_journal *journal, const char *file)
{
    char path[256];
    size_t length;
    struct unshard_error error = {0};
    snprintf(path, sizeof path, CORPUS "/%s", file);
    char *data = corpus_read(path, &length);
    int fd = journal_directory(data, length);
    if (export_journal_open(journal, fd, "target", "/models/x", &error) != 0)
        fail_msg("%s: %s", file, error.message);
    close(fd);
    free(data);
}

static void test_records(void **state)
{
    (void)state;
    struct export_journal journal;
    open_file(&journal, "accept-usual");
    const struct export_record *record = export_journal_find(&journal, "a/model.safetensors");
    assert_non_null(record);
    assert_true(record->done && record->temporary && !record->begun);
    assert_int_equal(record->inode, 17);
    assert_int_equal(record->size, 1048576);
    assert_true(record->ctime_ns == INT64_C(1700000001000000000));
    assert_true(record->fingerprint.high64 == 1 && record->fingerprint.low64 == UINT64_MAX);
    export_journal_close(&journal, -1, false);
    open_file(&journal, "accept-odd-names");
    assert_int_equal(journal.record_count, 4);
    assert_non_null(export_journal_find(&journal, " b"));
    assert_non_null(export_journal_find(&journal, "a\nb"));
    assert_true(export_journal_find(&journal, "\xff ")->mtime_ns == -3);
    export_journal_close(&journal, -1, false);
    open_file(&journal, "accept-unsafe-paths");
    assert_int_equal(journal.record_count, 0);
    export_journal_close(&journal, -1, false);
    open_file(&journal, "accept-cut");
    assert_int_equal(journal.record_count, 1);
    export_journal_close(&journal, -1, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
