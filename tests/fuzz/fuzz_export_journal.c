/* SPDX-License-Identifier: MIT
 *
 * The journal of an export: whatever it holds, it is refused, or its records are of paths below the
 * target, and it can be written on. */
#include "export/export_journal.h"
#include "tests/support/journal_directory.h"

static void check_records(struct export_journal *journal)
{
    for (uint32_t i = 0; i < journal->record_count; i++) {
        const char *path = journal->records[i].path;
        if (path[0] == '\0' || path[0] == '/' || strncmp(path, "../", 3) == 0 ||
            strstr(path, "/../") != NULL || export_journal_find(journal, path) == NULL)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct export_journal journal;
    struct unshard_error error = {0};
    int fd = journal_directory(data, size);
    if (export_journal_open(&journal, fd, "target", "/models/x", &error) == 0) {
        uint32_t count = journal.record_count;
        check_records(&journal);
        if (export_journal_temporary(&journal, "new") != 0)
            abort();
        bool known = export_journal_find(&journal, "new") != NULL;
        export_journal_close(&journal, fd, false);
        if (export_journal_open(&journal, fd, "target", "/models/x", &error) != 0 ||
            journal.record_count != count + !known)
            abort();
        export_journal_close(&journal, fd, false);
    }
    close(fd);
    return 0;
}
