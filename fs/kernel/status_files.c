/* SPDX-License-Identifier: MIT */
#include "fs/kernel/status_files.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* Inode numbers of the directory and, after it, of its files: "unshard" in ASCII, out of the way of
 * numbers derived from paths by being fixed. */
#define FIRST_INODE UINT64_C(0x756e736861726400)

static char *plain_text(const struct unshard_status *status)
{
    return unshard_status_text(status, 0);
}

struct status_file {
    const char *name;
    char *(*render)(const struct unshard_status *status);
};

static const struct status_file files[] = {
    {"status", plain_text},
    {"status.json", unshard_status_json},
    {"metrics", unshard_status_metrics},
    {"errors", unshard_status_errors},
};

unsigned status_file_count(void)
{
    return (unsigned)(sizeof files / sizeof files[0]);
}

const char *status_file_name(unsigned file)
{
    return files[file].name;
}

int status_file_find(const char *name)
{
    for (unsigned file = 0; file < status_file_count(); file++)
        if (!strcmp(files[file].name, name))
            return (int)file;
    return -1;
}

char *status_file_text(unsigned file, const struct unshard_status *status)
{
    return files[file].render(status);
}

void status_file_attributes(int file, const struct stat *shown, struct stat *out)
{
    memset(out, 0, sizeof *out);
    out->st_ino = FIRST_INODE + (uint64_t)(file + 1);
    out->st_mode = shown->st_mode;
    out->st_nlink = 1;
    out->st_uid = shown->st_uid;
    out->st_gid = shown->st_gid;
    out->st_blksize = 4096;
    /* The length is known only once rendered; direct I/O makes readers go on to the real end. */
    clock_gettime(CLOCK_REALTIME, &out->st_mtim);
    out->st_atim = out->st_ctim = out->st_mtim;
}
