/* SPDX-License-Identifier: MIT */
#include "tree/leftover_name.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define RSYNC_DIGITS 6U

static const char *const whole_names[] = {".DS_Store", "Thumbs.db", "desktop.ini"};
static const char *const beginnings[] = {"._", ".#", ".nfs", ".fuse_hidden", ".~lock."};
static const char *const endings[] = {
    ".incomplete", ".part", ".partial", ".tmp", ".temp", ".aria2", ".download",
    ".crdownload", ".lock", ".swp",     ".swo", "~",     ".!qB",   ".unshard-tmp"};

const char *const leftover_of_download[] = {".incomplete", ".part",       ".partial",
                                            ".aria2",      ".crdownload", NULL};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ".NAME.XXXXXX" */
static bool is_of_rsync(const char *name)
{
    const char *dot = strrchr(name, '.');
    if (name[0] != '.' || dot < name + 2 || strlen(dot + 1) != RSYNC_DIGITS)
        return false;
    while (*++dot != '\0')
        if (!isalnum((unsigned char)*dot))
            return false;
    return true;
}

bool leftover_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    size_t length = strlen(name);
    for (size_t i = 0; i < LENGTH(whole_names); i++)
        if (strcmp(name, whole_names[i]) == 0)
            return true;
    for (size_t i = 0; i < LENGTH(beginnings); i++)
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    for (size_t i = 0; i < LENGTH(endings); i++) {
        size_t size = strlen(endings[i]);
        if (length > size && strcasecmp(name + length - size, endings[i]) == 0)
            return true;
    }
    return is_of_rsync(name);
}
