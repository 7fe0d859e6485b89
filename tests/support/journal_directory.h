/* SPDX-License-Identifier: MIT
 *
 * A directory that holds the journal of an export and nothing else. */
#ifndef SUPPORT_JOURNAL_DIRECTORY_H
#define SUPPORT_JOURNAL_DIRECTORY_H

#include "export/export_journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char journal_folder[] = "/tmp/unshard-journal-XXXXXX";

static inline void journal_die(const char *what)
{
    perror(what);
    abort();
}

static inline void journal_directory_remove(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/" EXPORT_JOURNAL_NAME, journal_folder);
    unlink(path);
    rmdir(journal_folder);
}

/* Writes these bytes as the journal. A descriptor of the directory, which is the caller's. */
static inline int journal_directory(const void *data, size_t length)
{
    if (strstr(journal_folder, "XXXXXX") != NULL &&
        (mkdtemp(journal_folder) == NULL || atexit(journal_directory_remove) != 0))
        journal_die("mkdtemp");
    int directory = open(journal_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(directory, EXPORT_JOURNAL_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, length) != (ssize_t)length)
        journal_die(EXPORT_JOURNAL_NAME);
    close(fd);
    return directory;
}

#endif
