/* SPDX-License-Identifier: MIT */
#include "export/export_journal.h"

#include "base/error.h"
#include "base/read_fully.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define HEADER "unshard-export 1 "
/* Three records for each of a million files with long names. */
#define MOST_BYTES (UINT64_C(1) << 30)
#define RECORD_CAPACITY (PATH_MAX + 192)

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---- what an earlier run has said --------------------------------------------------------------
 */

static struct export_record *record_of(struct export_journal *journal, const char *path)
{
    uint32_t number;
    size_t length = strlen(path);
    if (string_map_find(&journal->by_path, path, length, &number))
        return &journal->records[number];
    if (journal->record_count == journal->record_capacity) {
        uint32_t capacity = journal->record_capacity == 0 ? 64 : 2 * journal->record_capacity;
        struct export_record *grown =
            reallocarray(journal->records, capacity, sizeof *journal->records);
        if (grown == NULL)
            return NULL;
        journal->records = grown;
        journal->record_capacity = capacity;
    }
    const char *copy = arena_copy_string(&journal->arena, path, length);
    if (copy == NULL ||
        string_map_add(&journal->by_path, copy, length, journal->record_count, NULL) < 0)
        return NULL;
    struct export_record *record = &journal->records[journal->record_count++];
    *record = (struct export_record){.path = copy};
    return record;
}

/* Relative, and without a component that leads up. */
static bool is_safe_path(const char *path)
{
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 0 || (length == 1 && path[0] == '.') ||
            (length == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += length + (path[length] == '/');
        if (*path == '\0')
            return path[-1] != '/';
    }
    return false;
}

/* Takes " NUMBER", in decimal; *at is NULL afterwards when there is none. */
static uint64_t take_number(const char **at)
{
    char *end = NULL;
    if (*at == NULL || (*at)[0] != ' ' || (*at)[1] < '0' || (*at)[1] > '9') {
        *at = NULL;
        return 0;
    }
    errno = 0;
    uint64_t value = strtoull(*at + 1, &end, 10);
    *at = errno == 0 ? end : NULL;
    return value;
}

/* Times of before 1970 are written with a sign. */
static int64_t take_time(const char **at)
{
    char copy[32] = " ";
    if (*at == NULL || (*at)[0] != ' ' || (*at)[1] != '-')
        return (int64_t)take_number(at);
    const char *digits = copy;
    size_t length = strspn(*at + 2, "0123456789");
    if (length == 0 || length > 19) {
        *at = NULL;
        return 0;
    }
    memcpy(copy + 1, *at + 2, length);
    *at += 2 + length;
    return (int64_t)(0 - take_number(&digits));
}

/* Where the path of a record begins, or NULL when it cannot be understood. */
static const char *parse_record(const char *text, struct export_record *found)
{
    const char *at = text[0] != '\0' ? text + 1 : NULL;
    found->temporary = text[0] == 't';
    found->begun = text[0] == 'b';
    found->done = text[0] == 'd';
    if (!found->temporary && !found->begun && !found->done)
        return NULL;
    if (!found->temporary) {
        found->inode = take_number(&at);
        found->size = take_number(&at);
        found->mtime_ns = take_time(&at);
    }
    if (found->done) {
        found->ctime_ns = take_time(&at);
        found->fingerprint.high64 = take_number(&at);
        found->fingerprint.low64 = take_number(&at);
    }
    return at != NULL && *at == ' ' && is_safe_path(at + 1) ? at + 1 : NULL;
}

/* Takes in one record. What cannot be understood is nothing: its file is written again. */
static int take_record(struct export_journal *journal, const char *text)
{
    struct export_record found = {0};
    const char *path = parse_record(text, &found);
    if (path == NULL)
        return 0;
    struct export_record *record = record_of(journal, path);
    if (record == NULL)
        return -ENOMEM;
    found.path = record->path;
    found.temporary = found.temporary || record->temporary;
    if (found.begun || found.done)
        *record = found;
    else
        record->temporary = true;
    return 0;
}

/* Takes in what ends with a NUL; the file is cut behind that. */
static int take_records(struct export_journal *journal, char *text, size_t length)
{
    size_t start = strlen(text) + 1; /* of the header */
    int result = 0;
    while (start < length && result == 0) {
        const char *end = memchr(text + start, '\0', length - start);
        if (end == NULL)
            break;
        result = take_record(journal, text + start);
        start = (size_t)(end - text) + 1;
    }
    journal->length = start;
    return result == 0 && ftruncate(journal->fd, (off_t)start) < 0 ? -errno : result;
}

static int refuse(const char *target, struct unshard_error *error)
{
    return error_set(error, "target-not-empty", ENOTEMPTY,
                     "%s: the target directory is not empty, and " EXPORT_JOURNAL_NAME
                     " in it is not of an export",
                     target);
}

static int check_header(const char *text, size_t length, const char *target, const char *source,
                        struct unshard_error *error)
{
    size_t header = strlen(HEADER);
    if (length < header || memcmp(text, HEADER, header) != 0 || memchr(text, '\0', length) == NULL)
        return refuse(target, error);
    if (strcmp(text + header, source) == 0)
        return 0;
    return error_set(error, "other-export", EEXIST,
                     "%s: holds an unfinished export of %.200s: go on with that, or choose another "
                     "target",
                     target, text + header);
}

static int resume(struct export_journal *journal, const char *target, const char *source,
                  struct unshard_error *error)
{
    struct stat status;
    if (fstat(journal->fd, &status) < 0)
        return error_set(error, "target", errno, "%s: %s", target, strerror(errno));
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > MOST_BYTES)
        return refuse(target, error);
    size_t length = (size_t)status.st_size;
    char *text = malloc(length + 1);
    if (text == NULL)
        return error_no_memory(error);
    ssize_t got = read_fully(journal->fd, 0, text, length);
    int result = got < 0 ? error_set(error, "target", (int)-got, "%s/" EXPORT_JOURNAL_NAME ": %s",
                                     target, strerror((int)-got))
                         : check_header(text, (size_t)got, target, source, error);
    if (result == 0 && (result = take_records(journal, text, (size_t)got)) < 0)
        error_set(error, "target", -result, "%s/" EXPORT_JOURNAL_NAME ": %s", target,
                  strerror(-result));
    free(text);
    journal->resumed = true;
    return result;
}

/* ---- a new one ---------------------------------------------------------------------------------
 */

static int check_empty(int fd, const char *target, struct unshard_error *error)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        int number = errno;
        if (copy >= 0)
            close(copy);
        return error_set(error, "target", number, "%s: %s", target, strerror(number));
    }
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = error_set(error, "target-not-empty", ENOTEMPTY,
                               "%s: the target directory is not empty", target);
    }
    closedir(directory);
    return result;
}

static int append(struct export_journal *journal, const char *record, size_t length)
{
    size_t done = 0;
    int result = 0;
    pthread_mutex_lock(&journal->lock);
    while (done < length && result == 0) {
        ssize_t wrote =
            pwrite(journal->fd, record + done, length - done, (off_t)(journal->length + done));
        if (wrote > 0)
            done += (size_t)wrote;
        else if (wrote == 0 || errno != EINTR)
            result = wrote == 0 ? -EIO : -errno;
    }
    if (result == 0)
        journal->length += length;
    else if (ftruncate(journal->fd, (off_t)journal->length) < 0)
        errno = 0; /* the record has no end, so it counts for nothing */
    pthread_mutex_unlock(&journal->lock);
    return result;
}

static int begin(struct export_journal *journal, int target_fd, const char *target,
                 const char *source, struct unshard_error *error)
{
    char header[RECORD_CAPACITY];
    int result = check_empty(target_fd, target, error);
    if (result < 0)
        return result;
    journal->fd = openat(target_fd, EXPORT_JOURNAL_NAME,
                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (journal->fd < 0)
        return error_set(error, "target", errno, "%s: cannot write there: %s", target,
                         strerror(errno));
    int length = snprintf(header, sizeof header, HEADER "%s", source);
    result =
        length >= (int)sizeof header ? -ENAMETOOLONG : append(journal, header, (size_t)length + 1);
    if (result == 0)
        return 0;
    unlinkat(target_fd, EXPORT_JOURNAL_NAME, 0);
    return error_set(error, "write-error", -result, "%s/" EXPORT_JOURNAL_NAME ": %s", target,
                     strerror(-result));
}

static int lock(const struct export_journal *journal, const char *target,
                struct unshard_error *error)
{
    if (flock(journal->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return 0; /* a file system without locks does without */
    return error_set(error, "export-runs", EBUSY, "%s: another export is writing there", target);
}

static void release(struct export_journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->records);
    string_map_free(&journal->by_path);
    arena_free(&journal->arena);
    pthread_mutex_destroy(&journal->lock);
}

int export_journal_open(struct export_journal *journal, int target_fd, const char *target,
                        const char *source, struct unshard_error *error)
{
    *journal = (struct export_journal){.fd = -1};
    pthread_mutex_init(&journal->lock, NULL);
    int result = 0;
    journal->fd = openat(target_fd, EXPORT_JOURNAL_NAME,
                         O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (journal->fd >= 0) {
        result = lock(journal, target, error);
        if (result == 0)
            result = resume(journal, target, source, error);
    } else if (errno == ENOENT) {
        result = begin(journal, target_fd, target, source, error);
        if (result == 0)
            result = lock(journal, target, error);
    } else {
        result = error_set(error, "target", errno, "%s/" EXPORT_JOURNAL_NAME ": %s", target,
                           strerror(errno));
    }
    if (result < 0)
        release(journal);
    return result;
}

void export_journal_close(struct export_journal *journal, int target_fd, bool complete)
{
    if (complete && unlinkat(target_fd, EXPORT_JOURNAL_NAME, 0) == 0)
        fsync(target_fd);
    release(journal);
}

/* ---- records -----------------------------------------------------------------------------------
 */

const struct export_record *export_journal_find(const struct export_journal *journal,
                                                const char *path)
{
    uint32_t number;
    return string_map_find(&journal->by_path, path, strlen(path), &number)
               ? &journal->records[number]
               : NULL;
}

/* File systems that make up their inode numbers may have others now. */
bool export_record_owns(const struct export_record *record, const struct stat *status)
{
    return (record->begun || record->done) && S_ISREG(status->st_mode) &&
           (record->inode == status->st_ino || (record->size == (uint64_t)status->st_size &&
                                                record->mtime_ns == nanoseconds(status->st_mtim)));
}

bool export_record_keeps(const struct export_record *record, const struct stat *status,
                         XXH128_hash_t fingerprint)
{
    static const XXH128_hash_t unknown = {0, 0};
    return record->done && S_ISREG(status->st_mode) && record->inode == status->st_ino &&
           record->size == (uint64_t)status->st_size &&
           record->mtime_ns == nanoseconds(status->st_mtim) &&
           record->ctime_ns == nanoseconds(status->st_ctim) &&
           !XXH128_isEqual(fingerprint, unknown) &&
           XXH128_isEqual(record->fingerprint, fingerprint);
}

int export_journal_temporary(struct export_journal *journal, const char *path)
{
    char record[RECORD_CAPACITY];
    int length = snprintf(record, sizeof record, "t %s", path);
    return length >= (int)sizeof record ? -ENAMETOOLONG
                                        : append(journal, record, (size_t)length + 1);
}

int export_journal_begin(struct export_journal *journal, const char *path, int fd)
{
    char record[RECORD_CAPACITY];
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    int length = snprintf(record, sizeof record, "b %" PRIu64 " %" PRIu64 " %" PRId64 " %s",
                          (uint64_t)status.st_ino, (uint64_t)status.st_size,
                          nanoseconds(status.st_mtim), path);
    return length >= (int)sizeof record ? -ENAMETOOLONG
                                        : append(journal, record, (size_t)length + 1);
}

int export_journal_done(struct export_journal *journal, const char *path, int fd,
                        XXH128_hash_t fingerprint)
{
    char record[RECORD_CAPACITY];
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    int length =
        snprintf(record, sizeof record,
                 "d %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64 " %s",
                 (uint64_t)status.st_ino, (uint64_t)status.st_size, nanoseconds(status.st_mtim),
                 nanoseconds(status.st_ctim), (uint64_t)fingerprint.high64,
                 (uint64_t)fingerprint.low64, path);
    return length >= (int)sizeof record ? -ENAMETOOLONG
                                        : append(journal, record, (size_t)length + 1);
}
