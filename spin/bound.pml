/* Memory reclamation by eras: bounded memory.

   Writer 0 replaces what the cells of a map contain, for ever, and reclaims as it goes. Every other
   thread may stop for ever at each of its steps. Retained is what is displaced and not freed. It must
   stay within BOUND. README.md says how a run without end has finitely many states.

   With one writer nothing but readers can come between its steps, so they are merged: a reader sees
   the epoch and the era word, and shows its counts. With two writers the steps are apart.

   Sizes: READERS, WRITERS, WRITES (of writer 1; 255: no end), K (cells), TH (so much garbage of an era may begin the next), OBJECTS,
   BOUND. A reader's second look is left out: whatever it sees, the reader counts itself out next.

   Weakenings, each of which is to be caught:
     NO_ERAS              no era begins
     ONLY_DUE             what has become due is swept, and ended objects are not looked at
     NOT_BORN             an item does not say in which era it was born: it may be of the first
     NOT_MARKED           an item that is parked does not say in which era it was displaced   */

#ifndef READERS
#define READERS 1
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef K
#define K 2
#endif
#ifndef TH
#define TH 2
#endif
#define STALLED (READERS + WRITERS - 1)
#ifndef OBJECTS
#define OBJECTS (STALLED + 2)
#endif
#ifndef SLACK
#define SLACK 2
#endif
#ifndef BOUND
#define BOUND (STALLED * (K + TH + SLACK) + TH + SLACK)
#endif

#define ITEMS (K + BOUND)

/* An item is one number: where it is, the era it was born in, and, if it was found due or parked, the
   last era whose readers may hold it (the one before that in which it was displaced). 0: no item. */
#define ITEM(p, b, l) (((p) << 10) | ((b) << 5) | (l))
#define PLACE(v) ((v) >> 10)
#define BORN(v) (((v) >> 5) & 31)
#define LAST(v) ((v) & 31)
#define LIVE    1                          /* in a cell */
#define HAND    2                          /* HAND + w: in the hands of writer w */
#define WAITING 4                          /* WAITING + x: on the parked list of object x */
#define LIMBO   12                         /* LIMBO + 4 * x + k: on list k of object x */
#define IS_LIST_OF(x, p) ((p) >= LIMBO + 4 * (x) && (p) < LIMBO + 4 * (x) + 4)

/* The state of an object. */
#define FREE    0
#define CLAIMED 1
#define ACTIVE  2

#define NONE 31

short item[ITEMS];                         /* sorted: which is which does not matter */
byte era_number = 1, era_object = 0;       /* the era word */
byte epoch[OBJECTS];                       /* modulo 4 */
byte count[2 * OBJECTS];                   /* count[2 * x + side] */
byte state[OBJECTS], number[OBJECTS];

/* What writers keep in mind. */
byte word[WRITERS];                        /* the number of an era, as seen in the word */
byte ended[WRITERS], looking[WRITERS];     /* the number seen at object `looking`, or NONE */
byte list[WRITERS];                        /* the list in hand came from here, or goes there */
byte held[WRITERS];                        /* the number of the era that it leaves an item to */
byte home[WRITERS];                        /* the object that counts what is in hand, or NONE */
bool moved[WRITERS];                       /* the epoch that it saw is not the epoch any more */

/* Not part of the state. */
hidden byte i, j, s;
hidden short v;
hidden byte is_known[32];
hidden byte up[32], down[32];

/* Brings a state into the one form of all that behave alike. */
inline tidy() {
  d_step {
    /* Numbers of eras are compared with each other and with each other's successors. So the known ones
       are numbered anew, gaps of more than one becoming two. `born` goes up to the next known one,
       `last` goes down to the one before. The number of a free object that nobody looks at is 0. */
    i = 0; do :: i < 32 -> is_known[i] = false; i++ :: else -> break od;
    i = 0;
    do
    :: i < OBJECTS ->
       s = state[i];                        /* FREE: is 0 */
       j = 0; do :: j < WRITERS -> s = s + (looking[j] == i || IS_LIST_OF(i, list[j])); j++ :: else -> break od;
       j = 0; do :: j < ITEMS -> s = s + IS_LIST_OF(i, PLACE(item[j])); j++ :: else -> break od;
       if :: s == 0 -> number[i] = 0 :: else fi;
       is_known[number[i]] = true; i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < WRITERS -> is_known[word[i]] = true; is_known[ended[i]] = true;
       is_known[held[i]] = true; i++
    :: else -> break
    od;
    is_known[0] = true; is_known[era_number] = true; assert(era_number < 30);
    i = 1; j = 0; s = 0; up[0] = 0; down[0] = 0;     /* j: the known one before; s: its new one */
    do
    :: i <= era_number ->
       up[i] = s + (is_known[i] && i == j + 1 -> 1 : 2); down[i] = s;
       if :: is_known[i] -> s = up[i]; down[i] = s; j = i :: else fi;
       i++
    :: else -> break
    od;
    assert(j == era_number);
    i = 0; do :: i < OBJECTS ->
      number[i] = (number[i] > era_number -> s + number[i] - era_number : up[number[i]]); i++
    :: else -> break od;
    i = 0; do :: i < WRITERS ->
      word[i] = up[word[i]]; ended[i] = up[ended[i]]; held[i] = up[held[i]]; i++
    :: else -> break od;
    era_number = s;
    /* An object's epoch and lists may be turned by two: the side stays. */
    i = 0;
    do
    :: i < OBJECTS && epoch[i] >= 2 ->
       epoch[i] = epoch[i] - 2;
       j = 0;
       do
       :: j < ITEMS ->
          if :: IS_LIST_OF(i, PLACE(item[j])) -> item[j] = item[j] ^ (2 << 10) :: else fi; j++
       :: else -> break
       od;
       j = 0;
       do
       :: j < WRITERS -> if :: IS_LIST_OF(i, list[j]) -> list[j] = list[j] ^ 2 :: else fi; j++
       :: else -> break
       od;
       i++
    :: i < OBJECTS && epoch[i] < 2 -> i++
    :: i == OBJECTS -> break
    od;
    /* The items: numbered, and inserted one after the other. */
    i = 0;
    do
    :: i < ITEMS ->
       v = item[i];
       if
       :: v != 0 -> v = ITEM(PLACE(v), up[BORN(v)], down[LAST(v)])
       :: else
       fi;
       j = i;
       do
       :: j > 0 ->
          if :: item[j - 1] < v -> item[j] = item[j - 1]; j-- :: else -> break fi
       :: else -> break
       od;
       item[j] = v; i++
    :: else -> break
    od;
    i = 0; j = 0; s = 0; v = 0
  }
}

/* What only other writers can interrupt. */
#if WRITERS == 1
#define AMONG_WRITERS atomic
#else
#define AMONG_WRITERS
#endif

proctype Reader() {
  byte c;
  do
  :: c = 2 * era_object + (epoch[era_object] & 1);
     count[c]++;
     atomic { count[c]--; c = 0 }
  od
}

/* Moves all that is at `from` into the hands of writer `me`, or all that is in its hands to `to`. */
inline move(from, to, last) {
  i = 0;
  do
  :: i < ITEMS && PLACE(item[i]) == from -> item[i] = ITEM(to, BORN(item[i]), last); i++
  :: i < ITEMS && PLACE(item[i]) != from -> i++
  :: i == ITEMS -> break
  od;
  i = 0
}

#ifdef NOT_MARKED
#define MARK (era_number - 1)
#else
#define MARK LAST(item[i])
#endif

/* Whether an item counts as garbage of object x. */
#if WRITERS == 1
#define IS_OF(x, v) (PLACE(v) == WAITING + x || IS_LIST_OF(x, PLACE(v)))
#else
#define IS_OF(x, v) (PLACE(v) == WAITING + x || IS_LIST_OF(x, PLACE(v)) || \
                     (PLACE(v) == HAND && home[0] == x) || (PLACE(v) == HAND + 1 && home[1] == x))
#endif

#define HOLDS(y, v) (state[y] == ACTIVE && BORN(v) <= number[y] && number[y] <= LAST(v))

/* Frees or parks what is in hand, item by item. */
inline settle() {
  do
  :: atomic {
       d_step {
         i = 0; do :: i < ITEMS && PLACE(item[i]) != HAND + me -> i++ :: else -> break od;
         if
         :: i < ITEMS ->
            y = 0; do :: y < OBJECTS && !HOLDS(y, item[i]) -> y++ :: else -> break od;
            if
            :: y == OBJECTS -> item[i] = 0; y = NONE
            :: else -> item[i] = ITEM(WAITING + y, BORN(item[i]), LAST(item[i])); held[me] = number[y]
            fi
         :: else -> y = OBJECTS
         fi
       };
       tidy();
       if :: y == OBJECTS -> y = 0; break :: else fi
     };
     atomic {                              /* parked: has that era drained meanwhile? */
       d_step {
         if
         :: y == NONE || (state[y] == ACTIVE && number[y] == held[me]) -> skip
         :: else -> move(WAITING + y, HAND + me, MARK)
         fi;
         y = 0; held[me] = 0
       };
       tidy()
     }
  od
}

#define CLAIMABLE(x) (x != o && state[x] != ACTIVE && number[x] <= word[me])

proctype Writer(byte me) {
  byte o, c, x, y;
  bool advanced;
  byte left = WRITES;
  do
  :: left > 0 ->
     if :: me > 0 && WRITES < 255 -> left-- :: else fi;
     AMONG_WRITERS {
       /* Enter. */
       do
       :: atomic { word[me] = era_number; o = era_object; c = 2 * o + (epoch[o] & 1) };
          count[c]++;
          if
          :: atomic { word[me] == era_number && o == era_object -> o = 0; break }
          :: atomic { !(word[me] == era_number && o == era_object) -> count[c]--; c = 0; o = 0 }
          fi
       od;
       /* Replace the item in some cell. (An exchange that fails is one that comes later.) */
       atomic {
         x = 0; do :: PLACE(item[x]) != LIVE -> x++ :: else -> break od;
         do :: x < ITEMS - 1 && PLACE(item[x + 1]) == LIVE -> x++ :: break od;
         y = 0;
         d_step {
           do :: y < ITEMS && item[y] != 0 -> y++ :: else -> break od;
           assert(y < ITEMS);              /* the bound */
           item[x] = ITEM(HAND + me, BORN(item[x]), 0);
#ifdef NOT_BORN
           item[y] = ITEM(LIVE, 1, 0);
#else
           item[y] = ITEM(LIVE, word[me], 0);
#endif
           word[me] = 0; x = 0; y = 0
         };
         tidy()
       };
       /* Leave. */
       atomic { count[c]--; c = 0 };
       /* Retire what was there. */
       d_step { list[me] = LIMBO + 4 * era_object + epoch[era_object] };
       atomic { move(HAND + me, list[me], 0); list[me] = 0; moved[me] = false; tidy() };
       /* Advance. The look and the exchange are one step, for epochs are modulo 4. */
       d_step { word[me] = era_number; o = era_object };
       d_step {
         advanced = (count[2 * o + ((epoch[o] + 1) & 1)] == 0);
         if
         :: advanced ->
            epoch[o] = (epoch[o] + 1) & 3;
            i = 0;
            do
            :: i < WRITERS ->
               moved[i] = moved[i] || IS_LIST_OF(o, list[i]); i++
            :: else -> break
            od
         :: else
         fi
       };
       /* Sweep what is due. */
       d_step { list[me] = LIMBO + 4 * o + ((epoch[o] + 1) & 3); moved[me] = false };
       atomic { move(list[me], HAND + me, word[me] - 1); home[me] = o; tidy() };
       d_step {
         if
         :: era_number == word[me] && era_object == o && !moved[me] -> skip
         :: else -> move(HAND + me, list[me], 0)
         fi;
         list[me] = 0; moved[me] = false
       };
       settle();
       home[me] = NONE
     };
#ifndef ONLY_DUE
     /* Look at ended objects. */
     do
     :: x < OBJECTS ->
        AMONG_WRITERS {
          d_step {
            if
            :: state[x] == ACTIVE && number[x] < era_number && count[2 * x] == 0 &&
               count[2 * x + 1] == 0 -> state[x] = FREE
            :: else
            fi;
            if :: state[x] == FREE -> looking[me] = x; ended[me] = number[x] :: else fi
          };
          if
          :: looking[me] == x ->
             home[me] = x;
             atomic { move(WAITING + x, HAND + me, MARK); tidy() };
             settle();
             i = 0;
             do
             :: d_step {
                  do :: i < ITEMS && !IS_LIST_OF(x, PLACE(item[i])) -> i++ :: else -> break od;
                  if
                  :: i < ITEMS ->
                     list[me] = PLACE(item[i]); move(list[me], HAND + me, ended[me] - 1)
                  :: else
                  fi;
                  i = 0
                };
                if :: list[me] == 0 -> break :: else fi;
                if
                :: d_step { state[x] == FREE && number[x] == ended[me] -> list[me] = 0 }; settle()
                :: atomic { !(state[x] == FREE && number[x] == ended[me]) ->
                     move(HAND + me, list[me], 0); list[me] = 0; moved[me] = false; tidy(); break }
                fi
             od;
             atomic { home[me] = NONE; looking[me] = NONE; ended[me] = 0; tidy() }
          :: else
          fi;
          x++
        }
     :: else -> x = 0; break
     od;
#endif
#ifndef NO_ERAS
     /* Begin an era. */
     AMONG_WRITERS {
       atomic {
         d_step {
           i = 0; j = 0;
           do :: i < ITEMS -> if :: IS_OF(o, item[i]) -> j++ :: else fi; i++ :: else -> break od;
           x = OBJECTS;
           if
           :: !advanced && j >= TH ->
              if
              :: state[o] == CLAIMED && number[o] == word[me] -> state[o] = ACTIVE
              :: else
              fi;
              x = 0; do :: x < OBJECTS && !CLAIMABLE(x) -> x++ :: else -> break od;
              if :: x < OBJECTS -> state[x] = CLAIMED; number[x] = word[me] + 1 :: else fi
           :: else
           fi
         };
         tidy()
       };
       if
       :: x < OBJECTS ->
          d_step {
            if
            :: era_number == word[me] && era_object == o -> era_number = word[me] + 1; era_object = x
            :: else -> x = OBJECTS
            fi;
            word[me] = era_number
          };
          d_step {
            if
            :: x < OBJECTS && state[x] == CLAIMED && number[x] == word[me] -> state[x] = ACTIVE
            :: else
            fi
          }
       :: else
       fi;
       atomic { word[me] = 0; x = 0; o = 0; advanced = false; tidy() }
     }
#else
     atomic { word[me] = 0; o = 0; advanced = false; tidy() }
#endif
  :: left == 0 -> break
  od
}

init {
  byte x;
  atomic {
    do :: x < K -> item[x] = ITEM(LIVE, 1, 0); x++ :: else -> x = 0; break od;
    do :: x < WRITERS -> looking[x] = NONE; home[x] = NONE; x++ :: else -> x = 0; break od;
    state[0] = ACTIVE; number[0] = 1;
    do :: x < WRITERS -> run Writer(x); x++ :: else -> x = 0; break od;
    do :: x < READERS -> run Reader(); x++ :: else -> x = 0; break od
  }
}
