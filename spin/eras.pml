/* Memory reclamation by eras: safety.

   Threads interleave step by step, each step with one access to shared memory, in sequential
   consistency; what weaker memory adds is for the loom models and the litmus tests. A thread may
   stop for ever at each step: it is then not scheduled any more. README.md says what is asserted.

   Sizes: READERS, WRITERS, WRITES (of each writer), RECLAIMERS, OBJECTS, ERAS (numbers 1 to ERAS),
   EPOCHS (the highest epoch). FALLBACK: who enters may count itself in everywhere.
   LOST: also assert that nothing is stranded. SPLIT: reclaimer 0 sweeps, the others do the rest.

   Weakenings, each of which is to be caught:
     NO_SECOND_LOOK       who enters does not look at the era word again
     LOOK_AT_OBJECT       ... or compares just the object
     GRACE_2              a list is due two epochs later
     OLDER_NOT_ASKED      due garbage is freed whatever older eras say
     EARLY_TAG            the tag is read before the exchange
     NO_EPOCH_LOOK        after a list was taken, the epoch is not looked at again
     NO_ERA_LOOK          ... nor is the era word
     NO_STATE_LOOK        after a drained object's list was taken, its state is not looked at again
     REUSE_UNDRAINED      an object is claimed although its ended era has not drained
     EARLY_DRAIN          the counts are looked at before the era is known to have ended
     PARK_AND_GO          who parks garbage does not look again (with LOST)                       */

#ifndef READERS
#define READERS 1
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef RECLAIMERS
#define RECLAIMERS 1
#endif
#ifndef OBJECTS
#define OBJECTS 2
#endif
#ifndef ERAS
#define ERAS 3
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif

#define VERSIONS (1 + WRITERS * WRITES)

/* Where a version is. */
#define NOWHERE   0
#define PUBLISHED 1
#define DISPLACED 2                        /* in the hands of the writer that displaced it */
#define FREED     3
#define HAND      4                        /* HAND + r: in the hands of reclaimer r */
#define WAITING   8                        /* WAITING + x: on the parked list of object x */
#define LIMBO     12                       /* LIMBO + 4 * x + k: on list k of object x */

/* The state of an object, with the number of an era. */
#define FREE    0
#define CLAIMED 1
#define ACTIVE  2

byte published = 0;
byte era_number = 1, era_object = 0;       /* the era word: read and exchanged as one */
byte epoch[OBJECTS];
byte count[2 * OBJECTS];                   /* count[2 * x + side] */
byte state[OBJECTS], number[OBJECTS];      /* one word per object */
byte where[VERSIONS], born[VERSIONS];
byte displaced[VERSIONS];                  /* noted when an item is found due as to its tag */
byte unused = 1;                           /* the next version that a writer may build */
byte started = 0;                          /* readers and writers begin in order: they are alike */
#ifdef LOST
byte busy = 0;                             /* reclaimers in the middle of something */
#endif

#ifdef NO_SECOND_LOOK
#define SAME_ERA true
#else
#ifdef LOOK_AT_OBJECT
#define SAME_ERA (era_object == o)
#else
#define SAME_ERA (era_number == n && era_object == o)
#endif
#endif

#ifdef GRACE_2
#define DUE(e) (((e) + 2) & 3)
#else
#define DUE(e) (((e) + 1) & 3)
#endif

/* Counts itself in, on count c, and loads `published` as p in the era numbered n. With c at
   EVERYWHERE it is counted in on both sides of all objects. */
#define EVERYWHERE 255
inline enter() {
  do
  :: atomic { n = era_number; o = era_object };
     c = 2 * o + (epoch[o] & 1);
     count[c]++;
     p = published;
     if
     :: atomic { SAME_ERA -> o = 0; break }
     :: atomic { !(SAME_ERA) -> count[c]--; c = 0; p = 0; n = 0; o = 0 }
     fi
#ifdef FALLBACK
  :: atomic { n = era_number; c = 0 };
     do
     :: atomic { c < 2 * OBJECTS - 1 -> count[c]++; c++ }
     :: atomic { c == 2 * OBJECTS - 1 -> count[c]++; c = EVERYWHERE; break }
     od;
     atomic { p = published; break }
#endif
  od
}

inline leave() {
#ifdef FALLBACK
  if
  :: atomic { c == EVERYWHERE -> c = 2 * OBJECTS - 1 };
     do
     :: atomic { c > 0 -> count[c]--; c-- }
     :: atomic { c == 0 -> count[c]--; break }
     od
  :: atomic { c != EVERYWHERE -> count[c]--; c = 0 }
  fi
#else
  atomic { count[c]--; c = 0 }
#endif
}

proctype Reader(byte me) {
  byte n, o, c, p;
  atomic { started == me -> started++ };
  enter();
  /* Whatever is freed stays so: the last moment of use is the worst. */
  atomic { assert(where[p] != FREED); n = 0; p = 0 };
  leave()
}

proctype Writer(byte me) {
  byte n, o, c, p, q, b, left = WRITES;
  atomic { started == me -> started++ };
  do
  :: left > 0 ->
     enter();
     atomic {
       assert(where[p] != FREED);
       if :: q == 0 -> q = unused; unused++ :: else fi;
       b = n; n = 0
     };
#ifdef EARLY_TAG
     o = era_object;
     o = 4 * o + (epoch[o] & 3);
#endif
     atomic {                              /* the exchange */
       if
       :: published == p ->
          assert(where[p] == PUBLISHED && where[q] == NOWHERE);
          published = q; where[q] = PUBLISHED; born[q] = b; where[p] = DISPLACED;
          q = 0; b = 0
       :: else -> p = EVERYWHERE; b = 0; o = 0
       fi
     };
     leave();
     if
     :: atomic { p == EVERYWHERE -> p = 0 }
     :: atomic { p != EVERYWHERE ->
#ifndef EARLY_TAG
        o = era_object };
        atomic { o = 4 * o + (epoch[o] & 3) };
        atomic {
#endif
          where[p] = LIMBO + o; p = 0; o = 0; left-- }
     fi
  :: else -> break
  od
}

/* Takes all that is at `place` into reclaimer `me`'s hands; i: VERSIONS if there was nothing. */
inline take(place, number_noted) {
  i = 0; k = 0;
  do
  :: i < VERSIONS && where[i] == place ->
     where[i] = HAND + me; k = 1;
     if :: number_noted > 0 -> displaced[i] = number_noted :: else fi;
     i++
  :: i < VERSIONS && where[i] != place -> i++
  :: i == VERSIONS -> break
  od;
  i = 0
}

/* Puts back all that was taken. */
inline put_back(place) {
  i = 0;
  do
  :: i < VERSIONS && where[i] == HAND + me -> where[i] = place; displaced[i] = 0; i++
  :: i < VERSIONS && where[i] != HAND + me -> i++
  :: i == VERSIONS -> break
  od;
  i = 0
}

#define IN_HAND(v) (v < VERSIONS && where[v % VERSIONS] == HAND + me)
#define SOME_IN_HAND (IN_HAND(0) || IN_HAND(1) || IN_HAND(2))
#ifdef OLDER_NOT_ASKED
#define OBJECTS_TO(y) false
#else
#define OBJECTS_TO(y) (state[y] == ACTIVE && born[i] <= number[y] && number[y] < displaced[i])
#endif

/* Frees each item in hand, which is due as to its tag, or parks it. Object after object is asked. */
inline free_or_park() {
  do
  :: atomic { SOME_IN_HAND ->
       if :: IN_HAND(0) -> i = 0 :: else -> if :: IN_HAND(1) -> i = 1 :: else -> i = 2 fi fi;
       if
       :: OBJECTS_TO(y) -> w = number[y]
       :: else ->
          if
          :: y < OBJECTS - 1 -> y++
          :: else ->                       /* nobody objects: it is freed at once, which is worst */
             assert(where[i] == HAND + me);
             where[i] = FREED; displaced[i] = 0; born[i] = 0; y = 0
          fi;
          i = 0
       fi };
     if
     :: atomic { w > 0 -> where[i] = WAITING + y; i = 0 };
#ifdef PARK_AND_GO
        atomic { w = 0; y = 0 }
#else
        atomic {
          if
          :: state[y] == ACTIVE && number[y] == w -> w = 0; y = 0
          :: else -> skip
          fi };
        if
        :: atomic { w > 0 -> take(WAITING + y, 0); k = 0; w = 0; y = 0 }
        :: w == 0
        fi
#endif
     :: w == 0
     fi
  :: atomic { !(SOME_IN_HAND) -> break }
  od
}

#ifdef SPLIT
#define SWEEPS (me == 0)
#define OTHERS (me > 0)
#else
#define SWEEPS true
#define OTHERS true
#endif

/* Objects that an operation may be about. */
#define ADVANCEABLE(x) (number[x] > 0 && epoch[x] < EPOCHS)
#define DRAINED(x) (state[x] == FREE)
#ifdef EARLY_DRAIN
#define DRAINABLE(x) (state[x] == ACTIVE && number[x] <= era_number)
#else
#define DRAINABLE(x) (state[x] == ACTIVE && number[x] < era_number)
#endif
#ifdef REUSE_UNDRAINED
#define CLAIMABLE(x) (x != o && (state[x] == ACTIVE -> number[x] < n : number[x] <= n))
#else
#define CLAIMABLE(x) (x != o && state[x] != ACTIVE && number[x] <= n)
#endif
#if OBJECTS == 2
#define SOME(which) which(0) || which(1)
#define PICK(which) if :: which(0) -> x = 0 :: which(1) -> x = 1 fi
#else
#define SOME(which) which(0) || which(1) || which(2)
#define PICK(which) if :: which(0) -> x = 0 :: which(1) -> x = 1 :: which(2) -> x = 2 fi
#endif

#ifdef LOST
#define BUSY busy++
#define IDLE busy--
#define DONE busy--
#else
#define BUSY skip
#define IDLE skip
#define DONE
#endif

proctype Reclaimer(byte me) {
  byte n, o, e, i, k, x, y, w;
end:
  do
  :: /* Advance the epoch of an object that is, or was, the current era's. */
     atomic { OTHERS && (SOME(ADVANCEABLE)) -> PICK(ADVANCEABLE); e = epoch[x]; BUSY };
     atomic {
       if                                   /* if the epoch has moved, the exchange will fail */
       :: epoch[x] == e && count[2 * x + ((e + 1) & 1)] == 0 -> skip
       :: else -> e = 0; x = 0; IDLE; goto end
       fi };
     atomic { if :: epoch[x] == e -> epoch[x] = e + 1 :: else fi; e = 0; x = 0; IDLE }

  :: /* Sweep the current era's due list. */
     atomic { SWEEPS -> n = era_number; o = era_object; BUSY };
     e = epoch[o];
     atomic {
       take(LIMBO + 4 * o + DUE(e), n);
       if :: k == 0 -> n = 0; o = 0; e = 0; IDLE; goto end :: else -> k = 0 fi };
#ifndef NO_ERA_LOOK
     atomic { if :: era_number == n && era_object == o -> skip :: else -> k = 1 fi };
#endif
     atomic {
#ifndef NO_EPOCH_LOOK
       if :: epoch[o] == e -> skip :: else -> k = 1 fi;
#endif
       if
       :: k == 0 -> n = 0; o = 0; e = 0
       :: else -> skip
       fi };
     if
     :: atomic { k == 1 -> put_back(LIMBO + 4 * o + DUE(e)); k = 0; n = 0; o = 0; e = 0; IDLE }
     :: k == 0 ->
        free_or_park();
        DONE
     fi

  :: /* Drain an object whose era has ended. */
     atomic { OTHERS && (SOME(DRAINABLE)) -> PICK(DRAINABLE); n = number[x]; BUSY };
     if
     :: count[2 * x] == 0 ->
        if
        :: count[2 * x + 1] == 0 ->
#ifdef EARLY_DRAIN
           if
           :: atomic { era_number > n }
           :: atomic { era_number == n -> n = 0; x = 0; IDLE; goto end }
           fi;
#endif
           if
           :: atomic { state[x] == ACTIVE && number[x] == n -> state[x] = FREE }; goto collect
           :: atomic { !(state[x] == ACTIVE && number[x] == n) -> n = 0; x = 0; IDLE }
           fi
        :: atomic { count[2 * x + 1] != 0 -> n = 0; x = 0; IDLE }
        fi
     :: atomic { count[2 * x] != 0 -> n = 0; x = 0; IDLE }
     fi

  :: /* Collect what lies at an object that was drained at some time. */
     atomic { OTHERS && (SOME(DRAINED)) -> PICK(DRAINED); n = number[x]; BUSY };
collect:
     do
     :: /* The first list that is not empty: the lists of limbo, then what is parked. */
        atomic {
          e = 0; k = 0;
          do
          :: e < 4 && k == 0 -> take(LIMBO + 4 * x + e, n); if :: k == 0 -> e++ :: else fi
          :: k == 1 -> break
          :: e == 4 && k == 0 -> take(WAITING + x, 0); break
          od;
          if :: k == 0 -> e = 0; n = 0; x = 0; IDLE; goto end :: else -> k = 0 fi };
        atomic {
#ifndef NO_STATE_LOOK
          if
          :: e == 4 || (state[x] == FREE && number[x] == n) -> skip
          :: else -> k = 1
          fi;
#endif
          if :: k == 0 -> e = 0 :: else -> skip fi };
        if
        :: atomic { k == 1 -> put_back(LIMBO + 4 * x + e); k = 0; e = 0; n = 0; x = 0; IDLE; goto end }
        :: k == 0 -> free_or_park()
        fi
     od

  :: /* Begin an era. */
     atomic {
       OTHERS && era_number < ERAS -> n = era_number; o = era_object; BUSY;
       k = (state[o] == CLAIMED && number[o] == n) };
     if                                    /* else this exchange is bound to fail */
     :: atomic { k == 1 ->
          if :: state[o] == CLAIMED && number[o] == n -> state[o] = ACTIVE :: else fi; k = 0 }
     :: k == 0
     fi;
     if
     :: atomic { SOME(CLAIMABLE) -> PICK(CLAIMABLE); state[x] = CLAIMED; number[x] = n + 1 };
        if
        :: atomic { era_number == n && era_object == o -> era_number = n + 1; era_object = x };
           atomic { if :: state[x] == CLAIMED && number[x] == n + 1 -> state[x] = ACTIVE :: else fi;
             n = 0; o = 0; x = 0; IDLE }
        :: atomic { !(era_number == n && era_object == o) -> n = 0; o = 0; x = 0; IDLE }
        fi
     :: atomic { !(SOME(CLAIMABLE)) -> n = 0; o = 0; IDLE }
     fi
  od
}

#ifdef LOST
#define STRANDED(v) (v < VERSIONS && where[v % VERSIONS] >= WAITING && where[v % VERSIONS] < LIMBO && \
                     state[(where[v % VERSIONS] - WAITING) % OBJECTS] != ACTIVE)
active proctype Nothing_is_stranded() {
end:
  atomic { busy == 0 && (STRANDED(0) || STRANDED(1) || STRANDED(2)) -> assert(false) }
}
#endif

init {
  byte j = 0;
  atomic {
    where[0] = PUBLISHED; born[0] = 1; state[0] = ACTIVE; number[0] = 1;
    do :: j < READERS -> run Reader(j); j++ :: else -> j = 0; break od;
    do :: j < WRITERS -> run Writer(j + READERS); j++ :: else -> j = 0; break od;
    do :: j < RECLAIMERS -> run Reclaimer(j); j++ :: else -> j = 0; break od
  }
}
