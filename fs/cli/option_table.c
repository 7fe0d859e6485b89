/* SPDX-License-Identifier: MIT */
#include "fs/cli/options.h"

#include <string.h>

#define AT(field) offsetof(struct options, field)

enum {
    MOUNTS = COMMAND_MOUNT | COMMAND_RUN,
    VIEWS = MOUNTS | COMMAND_LS | COMMAND_EXPORT,
    HASHING = COMMAND_SEAL | COMMAND_VERIFY,
    RUNNING = COMMAND_WAIT | COMMAND_EVICT | COMMAND_WARM | COMMAND_LIST | COMMAND_UPGRADE,
    ALL = VIEWS | RUNNING | HASHING | COMMAND_UMOUNT | COMMAND_STATUS | COMMAND_DOCTOR,
    PRINTS_JSON = RUNNING | HASHING | COMMAND_STATUS | COMMAND_DOCTOR | COMMAND_LS |
                  COMMAND_EXPORT | COMMAND_RUN,
};

const struct option_entry option_table[] = {
    {"at", 'a', false, OPTION_AT, "PATH", COMMAND_RUN, 0,
     "show the SOURCE before it at this directory instead of at its own place"},
    {"progress", 'p', false, OPTION_FLAG, NULL, COMMAND_RUN, AT(progress),
     "show on standard error how far loading has come"},
    {"summary", 's', false, OPTION_FLAG, NULL, COMMAND_RUN, AT(summary),
     "at the end tell on standard error what was loaded, how fast, and how it was verified"},
    {"foreground", 'f', false, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.foreground),
     "stay in the foreground and log to standard error"},
    {"prepare", 'p', false, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.prepare),
     "only mount, and leave that with the service manager for a daemon in a sandbox"},
    {"lazy", 'l', false, OPTION_FLAG, NULL, COMMAND_UMOUNT, AT(lazy),
     "detach now, even if busy; the daemon ends when the last file is closed"},
    {"all", 'a', false, OPTION_FLAG, NULL, COMMAND_UPGRADE, AT(all),
     "every mount of this host, one after the other"},
    {"force", 'f', false, OPTION_FLAG, NULL, COMMAND_UMOUNT, AT(force),
     "end its connection first, whatever state it is in: all its readers get an error"},
    {"json", 'j', false, OPTION_FLAG, NULL, PRINTS_JSON, AT(json), "print JSON"},
    {"json", 'j', false, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.json),
     "print the result as JSON: an error, or null"},
    {"watch", 'w', false, OPTION_FLAG, NULL, COMMAND_STATUS, AT(watch),
     "show it again and again until interrupted or unmounted"},
    {"interval", 'n', false, OPTION_SECONDS, "SECONDS", COMMAND_STATUS, AT(interval),
     "time between two pictures of --watch (default 1)"},
    {"timeout", 't', false, OPTION_SECONDS, "SECONDS", COMMAND_WAIT, AT(timeout),
     "give up after that time; until then also wait for the mount to appear"},
    {"verified", 'v', false, OPTION_FLAG, NULL, COMMAND_WAIT, AT(verified),
     "wait until all is verified too"},
    {"tensors", 't', false, OPTION_FLAG, NULL, COMMAND_LS, AT(tensors),
     "list the tensors of each component too"},
    {"check-against", 'c', false, OPTION_CHOICE, "all|others|none", COMMAND_SEAL, AT(check_against),
     "refuse what contradicts: any digest known (default), any but the old manifest's, or nothing"},
    {"help", 'h', false, OPTION_FLAG, NULL, ALL, AT(help), "print this help"},

    {"index", 0, true, OPTION_CHOICE, "rewrite|hide", VIEWS, AT(mount.view.index),
     "index files: point them to the merged file (default), or hide them"},
    {"order", 0, true, OPTION_CHOICE, "shard|canonical", VIEWS, AT(mount.view.order),
     "order of tensors: as in the shards, or as the safetensors library writes them"},
    {"layout", 0, true, OPTION_CHOICE, "merged|both|shards", VIEWS, AT(mount.view.layout),
     "show merged files only (default), the shards too, or the directory as it is on disk"},
    {"pickle", 0, true, OPTION_CHOICE, "auto|safetensors|asis", VIEWS, AT(mount.view.pickle),
     "PyTorch files as safetensors besides: where it misleads no loader, wherever possible, or "
     "not"},
    {"split", 0, true, OPTION_LIST, "auto|off|LIST", VIEWS, AT(mount.split),
     "show components of one file also by themselves: as recognised, none, or PREFIX[=NAME],..."},
    {"follow_symlinks", 0, true, OPTION_FLAG, NULL, VIEWS | HASHING, AT(mount.view.follow_symlinks),
     "also follow symlinks that leave the checkpoint"},
    {"prefetch", 0, true, OPTION_CHOICE, "all|follow|off|open", MOUNTS, AT(mount.fetch.prefetch),
     "fill the page cache with all (default: of one model), only ahead of readers, not, or with "
     "what is opened (default: of many)"},
    {"verify", 0, true, OPTION_CHOICE, "strict|async|off", MOUNTS | COMMAND_EXPORT,
     AT(mount.fetch.verify),
     "serve only what matches its known digest (default), serve and check besides, or don't check"},
    {"timeout", 0, true, OPTION_SECONDS, "SECONDS", MOUNTS, AT(mount.fetch.read_timeout_seconds),
     "a read that waits so long for storage fails (default 300)"},
    {"jobs", 0, true, OPTION_JOBS, "N", MOUNTS | COMMAND_EXPORT, AT(mount.fetch.jobs),
     "requests in flight, 1 to 256"},
    {"jobs", 0, true, OPTION_JOBS, "N", HASHING, AT(mount.fetch.jobs),
     "requests in flight, 1 to 256 (default 32)"},
    {"chunk", 0, true, OPTION_SIZE, "SIZE", MOUNTS, AT(mount.fetch.chunk_bytes),
     "unit of reading, a power of two, 64K to 64M (default 2M)"},
    {"buffer", 0, true, OPTION_SIZE, "SIZE", MOUNTS | COMMAND_EXPORT, AT(mount.fetch.buffer_bytes),
     "memory of all buffers together (default 256M)"},
    {"window", 0, true, OPTION_SIZE, "SIZE", MOUNTS, AT(mount.fetch.window_bytes),
     "how far to prefetch ahead of readers (default: from available memory)"},
    {"budget", 0, true, OPTION_SIZE, "SIZE", MOUNTS, AT(mount.fetch.budget_bytes),
     "page cache of all models together, with prefetch=open (default: from available memory)"},
    {"status_file", 0, true, OPTION_STRING, "PATH", MOUNTS, AT(mount.status_file),
     "keep a copy of the status JSON here"},
    {"metrics_file", 0, true, OPTION_STRING, "PATH", MOUNTS, AT(mount.metrics_file),
     "keep a copy of the metrics here, for a collector of text files"},
    {"log", 0, true, OPTION_STRING, "PATH", MOUNTS, AT(mount.log_path),
     "append the log to this file instead of syslog"},
    {"fsname", 0, true, OPTION_STRING, "NAME", MOUNTS, AT(mount.fsname),
     "what mount and df show as the device (default: the source)"},
    {"over", 0, true, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.over),
     "mount over SOURCE itself: programs keep its path; unmounting brings it back"},
    {"allow_other", 0, true, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.allow_other),
     "let other users read the mount"},
    {"allow_root", 0, true, OPTION_FLAG, NULL, COMMAND_MOUNT, AT(mount.allow_root),
     "let root read the mount"},

    /* What mount(8) and fstab pass on; each has no effect here, or has had it already. */
    {"ro", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"defaults", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"auto", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"noauto", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"user", 0, true, OPTION_IGNORED, "NAME", COMMAND_MOUNT, 0, NULL},
    {"nouser", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"users", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"owner", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"group", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"nofail", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"_netdev", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"dev", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"nodev", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"suid", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"nosuid", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"exec", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"noexec", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"atime", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"noatime", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"relatime", 0, true, OPTION_IGNORED, NULL, COMMAND_MOUNT, 0, NULL},
    {"rw", 0, true, OPTION_REFUSED, NULL, COMMAND_MOUNT, 0,
     "an unshard mount is read-only; leave it out or say ro"},
};
const size_t option_table_length = sizeof option_table / sizeof *option_table;

const struct command_entry command_table[] = {
    {"run", COMMAND_RUN, "SOURCE... -- COMMAND [ARG...]", 1, 64,
     "run a command that sees checkpoints merged in their own place",
     "Nobody else sees them so, and all of it ends with the last process of the command. Needs\n"
     "neither root nor fusermount3. Exit status: that of COMMAND; 125: it was not run; 126: it\n"
     "cannot be run; 127: it is not there.\n"},
    {"mount", COMMAND_MOUNT, "SOURCE [MOUNTPOINT]", 1, 2, "mount a checkpoint directory",
     "Returns when the mount works; what goes on then is told by `unshard status MOUNTPOINT`.\n"
     "MOUNTPOINT is left out, or SOURCE again, with `-o over`.\n"
     "The generic options of mount(8) that fstab passes on are accepted and have no effect.\n"},
    {"umount", COMMAND_UMOUNT, "MOUNTPOINT", 1, 1, "unmount it and wait for its daemon to end",
     NULL},
    {"status", COMMAND_STATUS, "MOUNTPOINT|FILE", 1, 1, "show what a mount is doing",
     "FILE is a copy of the status kept by `-o status_file=`.\n"
     "Exit status: 0 all is well; 1 no status to be had; 2 wrong usage; 3 the mount has errors.\n"},
    {"wait", COMMAND_WAIT, "MOUNTPOINT", 1, 1, "wait until a mount is warm",
     "Exit status: 0 it is warm; 1 a shard has failed, or there is no mount; 2 the time is over;\n"
     "64 wrong usage.\n"},
    {"evict", COMMAND_EVICT, "MOUNTPOINT [COMPONENT]", 1, 2, "give its page cache back",
     "COMPONENT is a name or a path that `unshard status` shows, or a directory; without it all\n"
     "are meant.\n"
     "Evicted components are not prefetched again until `unshard warm`.\n"},
    {"warm", COMMAND_WARM, "MOUNTPOINT [COMPONENT]", 1, 2, "prefetch again",
     "COMPONENT is a name or a path that `unshard status` shows, or a directory; without it all\n"
     "are meant.\n"
     "Returns at once; `unshard wait` waits.\n"},
    {"upgrade", COMMAND_UPGRADE, "[MOUNTPOINT]", 0, 1, "have this version serve a mount in use",
     "Its readers notice a short pause. What cannot be taken over is served as before.\n"
     "Exit status: 0 it was done; 1 a mount was not upgraded, and the message tells why; 2 wrong\n"
     "usage.\n"},
    {"list", COMMAND_LIST, "", 0, 0, "list the mounts of this host",
     "Exit status: 0 all are well; 1 they cannot be listed; 2 wrong usage; 3 a mount has errors "
     "or\n"
     "does not answer.\n"},
    {"doctor", COMMAND_DOCTOR, "[SOURCE|MOUNTPOINT]", 0, 1,
     "tell what of this machine stands in the way",
     "Exit status: 0 nothing does; 2 wrong usage; 3 something keeps a mount from working.\n"},
    {"ls", COMMAND_LS, "SOURCE", 1, 1, "show what a mount of a checkpoint would hold",
     "Exit status: 0 all is well; 1 the source cannot be read; 2 wrong usage; 3 a component "
     "failed\nor a file of digests is malformed.\n"},
    {"export", COMMAND_EXPORT, "SOURCE TARGET", 2, 2, "write the merged files to a new directory",
     "TARGET must not exist or be empty. Without order= tensors are put in canonical order,\n"
     "without split= a file that holds several components is written as it is only.\n"},
    {"verify", COMMAND_VERIFY, "SOURCE", 1, 1, "check all files against every digest known of them",
     "Exit status: 0 all that could be checked is good; 1 something is bad, missing or "
     "unreadable;\n"
     "2 no digest is known of any file, or wrong usage (then the message says so).\n"},
    {"seal", COMMAND_SEAL, "SOURCE", 1, 1, "write the digests of all files to SOURCE",
     "Writes SOURCE/unshard-manifest.json, which mounts and `unshard verify` check against.\n"
     "Exit status: 0 it was written; 1 it was not; 2 wrong usage.\n"},
};
const size_t command_table_length = sizeof command_table / sizeof *command_table;

const struct command_entry *option_table_command(const char *name)
{
    for (size_t i = 0; i < command_table_length; i++) {
        if (strcmp(command_table[i].name, name) == 0)
            return &command_table[i];
    }
    return NULL;
}

/* "-n, --interval SECONDS" or "chunk=SIZE". */
static void print_option(FILE *out, const struct option_entry *option)
{
    char left[64];
    const char *argument = option->argument ? option->argument : "";
    if (option->listed)
        snprintf(left, sizeof left, "%s%s%s", option->name, option->argument ? "=" : "", argument);
    else
        snprintf(left, sizeof left, "-%c, --%s%s%s", option->letter, option->name,
                 option->argument ? " " : "", argument);
    fprintf(out, "  %-24s %s\n", left, option->help);
}

static void print_options(FILE *out, const struct command_entry *command, bool listed,
                          const char *title)
{
    bool any = false;
    for (size_t i = 0; i < option_table_length; i++) {
        const struct option_entry *option = &option_table[i];
        if (option->listed != listed || !(option->commands & command->bit) || !option->help ||
            option->kind == OPTION_REFUSED)
            continue;
        if (!any)
            fprintf(out, "\n%s\n", title);
        any = true;
        print_option(out, option);
    }
}

static bool takes_list(const struct command_entry *command)
{
    for (size_t i = 0; i < option_table_length; i++) {
        if (option_table[i].listed && (option_table[i].commands & command->bit))
            return true;
    }
    return false;
}

void option_table_print_help(FILE *out, const struct command_entry *command)
{
    fprintf(out, "Usage: unshard %s [OPTION...]%s%s%s\n", command->name,
            takes_list(command) ? " [-o NAME[=VALUE],...]" : "", *command->operands ? " " : "",
            command->operands);
    fprintf(out, "unshard %s: %s.\n", command->name, command->summary);
    print_options(out, command, false, "Options:");
    print_options(out, command, true,
                  "Under -o (SIZE: bytes, or with K, M, G, T; a comma in a value is written \\,):");
    if (command->details)
        fprintf(out, "\n%s", command->details);
    fprintf(out, "\nSee unshard-%s(1).\n", command->name);
}

void option_table_print_overview(FILE *out)
{
    fputs("Usage: unshard COMMAND [ARGUMENT...]\n"
          "Mounts a model checkpoint: one merged safetensors file per component, read in parallel\n"
          "ahead of its loader.\n\n",
          out);
    for (size_t i = 0; i < command_table_length; i++)
        fprintf(out, "  %-7s %-29s %s\n", command_table[i].name, command_table[i].operands,
                command_table[i].summary);
    fputs(
        "\n`unshard COMMAND --help` tells a command's options, `unshard --version` the version.\n",
        out);
}
