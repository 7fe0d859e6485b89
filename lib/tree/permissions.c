/* SPDX-License-Identifier: MIT */
#include "tree/permissions.h"

enum { OTHERS = 0, GROUP = 3, OWNER = 6 };

bool permissions_same(const struct permissions *a, const struct permissions *b)
{
    return a->uid == b->uid && a->gid == b->gid && ((a->mode ^ b->mode) & 0777) == 0;
}

static mode_t class_bits(const struct permissions *of, int class)
{
    return of->mode >> class & 07U;
}

/* What a user may who is not the owner, and of whom the group is not known. */
static mode_t of_anybody(const struct permissions *of)
{
    return class_bits(of, GROUP) & class_bits(of, OTHERS);
}

/* What `of` leaves to the classes of a file of another owner and group. */
static mode_t as_shown(const struct permissions *of, uid_t uid, gid_t gid)
{
    mode_t owner = of->uid == uid ? class_bits(of, OWNER) : of_anybody(of);
    mode_t group = of->gid == gid ? class_bits(of, GROUP) : of_anybody(of);
    mode_t others = of->gid == gid ? class_bits(of, OTHERS) : of_anybody(of);
    if (of->uid != uid) { /* its owner is one of these here */
        group &= class_bits(of, OWNER);
        others &= class_bits(of, OWNER);
    }
    return owner << OWNER | group << GROUP | others << OTHERS;
}

static bool reads_more(mode_t a, mode_t b)
{
    for (mode_t bit = S_IROTH; bit <= S_IRUSR; bit <<= 3)
        if ((a ^ b) & bit)
            return (a & bit) != 0;
    return false;
}

struct permissions permissions_of_both(const struct permissions *a, const struct permissions *b)
{
    /* As root's, the owners are users as all others. */
    const uid_t owners[] = {a->uid, b->uid, 0};
    const gid_t groups[] = {a->gid, b->gid};
    struct permissions best = {.uid = a->uid, .gid = a->gid};
    best.mode = as_shown(a, a->uid, a->gid) & as_shown(b, a->uid, a->gid);
    for (unsigned i = 0; i < 6; i++) {
        struct permissions one = {.uid = owners[i / 2], .gid = groups[i % 2]};
        one.mode = as_shown(a, one.uid, one.gid) & as_shown(b, one.uid, one.gid);
        if (reads_more(one.mode, best.mode))
            best = one;
    }
    return best;
}

static bool is_in_group(const struct unshard_user *user, gid_t gid)
{
    bool is_in = user->gid == gid;
    for (unsigned i = 0; i < user->group_count && !is_in; i++)
        is_in = user->groups[i] == gid;
    return is_in;
}

bool permissions_let_list(const struct permissions *directory, const struct unshard_user *user)
{
    mode_t bits = user->groups_known ? class_bits(directory, OTHERS) : of_anybody(directory);
    if (directory->uid == user->uid)
        bits = class_bits(directory, OWNER);
    else if (is_in_group(user, directory->gid))
        bits = class_bits(directory, GROUP);
    return (bits & 05U) == 05U;
}
