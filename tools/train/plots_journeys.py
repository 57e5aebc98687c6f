"""Plots about going somewhere, in the notation of stories.py."""

PLOTS = {
    "river": {
        "title": ("Across the River", "The Old Bridge", "How $H Crossed the River"),
        "lesson": ("clever thinking can be stronger than strong arms", "two can do what one "
                   "cannot", "there is always another way"),
        "facts": {"What had to be crossed?": "They had to cross the river.",
                  "What happened to the bridge?": "The bridge was broken."},
        "beats": (
            ("$H wanted to visit $p grandmother on the other side of the river.",
             "$S had to bring $ax to the $job on the other side of the river."),
            ("But the bridge was broken, and the water was deep and fast.",
             "When $s came to the river, the old bridge was gone."),
            ("$H could not swim, so $s sat down and thought.", "\"How shall I get across?\" said "
             "$H."),
            ("$fintro sat on the bank. \"I want to cross too,\" said $F, \"but I am afraid of "
             "the water.\"", "Then $fintro came along the path. $T also wanted to cross."),
            ("First they tried to [jump from stone to stone|walk through the water], but it was "
             "too dangerous.", "?\"We could wait until the water is low,\" said $F. \"That will "
             "take too long,\" said $H."),
            ("Then $H saw a [long log|fallen tree] near the water and had an idea.",
             "\"I know!\" said $H. \"We can build a raft from this wood.\""),
            ("Together they pushed it over the water, and it made a new bridge.",
             "They tied the wood with a rope and worked until noon."),
            ("Slowly and carefully they went across.", "$H went first and held the hand of $F."),
            ("On the other side they laughed with relief.", "\"We did it!\" they cried when they "
             "reached the other side."),
        )},
    "trade": {
        "title": ("A Good Trade", "The $x and the $y", "$H at the Market"),
        "lesson": ("a thing is worth what it means to you", "a good trade makes two people happy",
                   "it is good to know what you need"),
        "facts": {"What did $H bring to the market?": "$H brought $ax.", "What did $H get?":
                  "$H got the $y of $F."},
        "beats": (
            ("$H had $acolor $x, but what $s needed was something else.",
             "At home $s had $ax that nobody used."),
            ("So on $day $s took the $x to the market.", "\"I will trade it,\" $s said, and went "
             "to the market with the $x."),
            ("The market was full of [people|noise], and there was the smell of fresh $food.",
             "?Many people were there, selling $food and flowers."),
            ("A $job wanted the $x, but had only [old shoes|a broken pot] to give.",
             "First a man offered [two coins|a rope], but that was not enough."),
            ("Then $fintro came along with a $y.", "In a corner stood $fintro, and $t had a $y."),
            ("\"I need $ax for my work,\" said $F. \"Will you take my $y for it?\"",
             "$F looked at the $x and said, \"I have wanted one like this for years.\""),
            ("$H thought about it and said yes, because a $y was just what $s needed.",
             "\"That is a fair trade,\" said $H, and they shook hands."),
            ("Both went home with a smile.", "So $F got the $x and $H got the $y, and both were "
             "glad."),
        )},
    "map": {
        "title": ("The Old Map", "The Treasure of the $place", "$H Finds a Treasure"),
        "lesson": ("the journey can be the treasure", "greed makes people blind", "a treasure is "
                   "best when it is shared"),
        "facts": {"What did $H find first?": "$H found an old map.", "What was in the box?":
                  "There was $ax in the box."},
        "beats": (
            ("In the $room $s found an old map.", "One day an old map fell out of a book."),
            ("It showed the $place and a red cross beside a big stone.", "There was a red cross "
             "on it, and below stood the words: Dig here."),
            ("\"A treasure!\" said $H, and ran to $F.", "$H showed it to $fintro. \"We must go "
             "there,\" said $F."),
            ("They packed $food, a shovel and a rope, and left at dawn.", "The next morning they "
             "set out with a shovel and a bag of $food."),
            ("The way was long. They climbed over rocks and [crossed a stream|walked through "
             "thick fog].", "At noon they lost the path, but the $animal showed them the way."),
            ("At last they found the big stone and began to dig.", "They dug for hours, until "
             "the shovel hit something hard."),
            ("It was a box, and in the box lay $acolor $x.", "They pulled out a heavy box. "
             "Inside was nothing but $ax and a letter."),
            ("?The letter said, \"Whoever finds this has found a good friend too.\"",
             "\"It is not gold,\" said $H, \"but it is ours.\""),
            ("They laughed all the way home.", "They took turns to carry it home."),
        )},
    "boat": {
        "title": ("The Little Boat", "Lost on the Lake", "The Light on the Shore"),
        "lesson": ("a small light can show a long way", "it is good when somebody waits for you",
                   "one should not go out alone in the fog"),
        "facts": {"What was the boat made of?": "It was made of wood.", "Who lit the lantern?":
                  "$F lit the lantern."},
        "beats": (
            ("$H had a little boat of wood, and the boat was painted $color.",
             "With the help of the $job, $H had built a little boat of wood."),
            ("\"Stay close to the shore,\" said $F.", "$fintro warned $o, \"Do not go far, "
             "because the fog comes quickly.\""),
            ("But the water was so smooth that $H went on and on.", "$H only wanted to see the "
             "island on the other side."),
            ("Then the fog came, thick and grey, and $s could not see the shore any more.",
             "Suddenly everything was grey. There was no shore, no sky, only fog."),
            ("\"Hello!\" $s called, but no one answered.", "$H did not know where to row, and "
             "$p hands were cold."),
            ("On the shore $F waited, and the longer $t waited, the more afraid $t was.",
             "At home $F saw that the boat was not back."),
            ("So $F climbed the hill and lit a big lantern.", "$F took a lantern, ran to the "
             "shore and held it up high."),
            ("Far away $H saw a small yellow light.", "Then $H saw something shine through the "
             "fog."),
            ("$S rowed toward it with all $p strength.", "Slowly, stroke by stroke, $s came "
             "closer."),
            ("When the boat touched the sand, $F pulled $o out and held $o tight.",
             "\"I am so glad to see you,\" said $F. \"And I was so glad to see your light,\" said "
             "$H."),
        )},
    "well": {
        "title": ("The Wishing Well", "Three Wishes", "The Last Wish"),
        "lesson": ("it is wise to think before you wish", "the best wish is for someone else",
                   "we often have what we need"),
        "facts": {"How many wishes were there?": "There were three wishes.",
                  "Who got the last wish?": "$F got the last wish."},
        "beats": (
            ("Behind the $place there was an old well, and people said that it gave three "
             "wishes.", "One day $H helped an old woman, and she said, \"You have three "
             "wishes.\""),
            ("\"First I wish for a lot of $food,\" said $H.", "$H was hungry and said without "
             "thinking, \"I wish for a mountain of $food.\""),
            ("At once the whole house was full of $food, and $s could not get out of the door.",
             "$food fell from the sky until the whole $room was full."),
            ("\"Stop!\" cried $H. \"I wish that it was gone!\" And it was gone.", "So $s had to "
             "use the second wish to make it go away."),
            ("Now there was only one wish left.", "\"One wish is left,\" said $H. \"This time I "
             "will think first.\""),
            ("$H thought about gold, about a castle and about $acolor crown.", "All night $s lay "
             "awake and thought about it."),
            ("The next morning $s met $fintro, who [could not walk|was very ill|had lost a "
             "home].", "Then $fintro came by with tears in $v eyes, because $v house had "
             "burned down."),
            ("$H did not think long. \"I wish that $F is well and happy again,\" $s said.",
             "\"I know what I want,\" said $H. \"I wish for your help, $F.\""),
            ("And so it was. $F laughed and danced around the well.", "In a moment everything "
             "was good again, and $F could not believe it."),
            ("$H had no gold and no castle, but $s had a friend.", "\"But now you have nothing,\" "
             "said $F. \"I have you,\" said $H."),
        )},
    "dragon": {
        "title": ("The Dragon of the $place", "The Dragon Who Could Not Sleep", "$H and the "
                  "Dragon"),
        "lesson": ("it is good to ask before you fight", "even the strong need help",
                   "a question can be stronger than a sword"),
        "facts": {"Why was the dragon angry?": "The dragon had a sore tooth.",
                  "Who went up the mountain?": "$H went up the mountain."},
        "beats": (
            ("On the mountain lived a dragon, and every night it roared so loud that nobody "
             "could sleep.", "A dragon had come to the mountain. It breathed fire and roared all "
             "night."),
            ("The king sent ten soldiers, but they ran away.", "The people were afraid and "
             "locked their doors."),
            ("\"Has anybody asked it what is wrong?\" said $H.", "Only $H was curious. \"Why "
             "does it roar?\" $s asked."),
            ("Everyone laughed. \"Nobody talks to a dragon,\" said $F.", "\"You must be mad,\" "
             "said $fintro."),
            ("But $H took $ax and some $food and climbed up the mountain.", "Early in the "
             "morning $H went up the mountain alone."),
            ("The dragon was as big as a house, and smoke came out of its nose.", "In front of "
             "a dark cave lay the dragon. \"Go away!\" it roared."),
            ("\"Why are you so angry?\" asked $H, although $p knees were shaking.",
             "$H took a deep breath. \"Good morning,\" $s said. \"Does something hurt?\""),
            ("The dragon was surprised. \"It is my tooth,\" it said, and a big tear ran down its "
             "face.", "\"Nobody has ever asked me that,\" said the dragon. \"My tooth hurts so "
             "much.\""),
            ("$H tied a rope to the tooth and to a heavy stone, and the stone rolled down the "
             "hill.", "With a strong rope $s pulled and pulled, until the tooth came out."),
            ("\"It does not hurt any more!\" cried the dragon and danced.", "The dragon smiled, "
             "and that night it slept without a sound."),
            ("From then on it lit the lamps of the town every evening.", "When $H came back, "
             "even the king bowed."),
        )},
    "letter": {
        "title": ("The Letter", "A Letter for $F", "The Long Way of a Letter"),
        "lesson": ("a few good words can travel far", "a promise should be kept",
                   "it is never too late to write"),
        "facts": {"What did $H carry?": "$H carried a letter.", "Who was the letter for?":
                  "The letter was for $F."},
        "beats": (
            ("The old $job gave $H a letter. \"Bring it to $F,\" the $job said. \"It is "
             "important.\"", "$H had promised to carry a letter to $F, who lived behind the "
             "$place."),
            ("So $H put it into a bag and set out.", "$S left at dawn with the letter under $p "
             "coat."),
            ("On the way the $animal asked $o to come and play, but $H said, \"Not now. I have "
             "made a promise.\"", "?The $animal sold sweet $food at the road, but $H did not "
             "stop."),
            ("Then it began to rain, so $H hid the letter under $p hat.", "In the $place the "
             "path was gone, and $s had to ask three times."),
            ("At noon the wind tore the letter away and carried it over a fence.",
             "When $s jumped over a stream, the letter fell into the water, but $s caught it "
             "just in time."),
            ("$H ran after it and did not give up.", "\"I must not lose it,\" thought $H and held "
             "it tight."),
            ("In the evening $s reached the house of $F.", "It was already dark when $H knocked "
             "at the right door."),
            ("$F opened the letter and read it [slowly|twice].", "With shaking hands $F opened "
             "it."),
            ("\"It is from my brother,\" said $F. \"I have waited for $number years.\"",
             "\"My sister is coming home!\" cried $F."),
            ("$F asked $H to stay for the night and gave $o $food.", "$F was so happy that $t "
             "kissed the letter."),
        )},
    "bridgekeeper": {
        "title": ("The Riddle", "The Three Riddles", "The Keeper of the Gate"),
        "lesson": ("the answer is often close", "thinking is better than shouting",
                   "a good question is worth a lot"),
        "facts": {"Who guarded the gate?": "$F guarded the gate.", "What did $H have to solve?":
                  "$H had to solve a riddle."},
        "beats": (
            ("The only road to the $place led through an old gate.", "To get home, $H had to go "
             "through a stone gate."),
            ("It was guarded by $fintro, who said, \"Nobody may pass without solving my "
             "riddle.\"", "Before the gate sat $fintro. \"Solve my riddle,\" said $F, \"or go "
             "back.\""),
            ("\"Ask me,\" said $H.", "$H was not afraid. \"What is the riddle?\" $s asked."),
            ("\"It follows you all day, but at night it is gone. What is it?\" said $F.",
             "\"It has hands, but it cannot hold anything,\" said $F. \"What is it?\"",
             "\"The more you take away, the bigger it gets,\" said $F. \"What is it?\""),
            ("$H sat down on a stone and thought.", "$H walked up and down and thought about "
             "it."),
            ("?\"You may ask for help once,\" said $F.", "?The sun went down slowly, and $F "
             "began to yawn."),
            ("Suddenly $s laughed, because the answer was so easy.", "Then $s looked around, and "
             "all at once $s knew it."),
            ("$H whispered the answer into the ear of $F.", "\"I know it!\" said $H, and gave "
             "the right answer."),
            ("\"You are the first in $number years,\" said $F and opened the gate.",
             "\"That is right,\" said $F. \"You are clever.\""),
            ("\"Now I have a riddle for you,\" said $H. And they sat there until midnight.",
             "Before $s left, $H gave $F a new riddle, so that $t would not be bored."),
        )},
    "sheep": {
        "title": ("The Missing Lamb", "One Is Missing", "The Smallest Lamb"),
        "lesson": ("every single one counts", "nobody is too small to be looked for",
                   "true care does not count the hours"),
        "facts": {"What was missing?": "One lamb was missing.", "Where was the lamb?":
                  "It was in a deep hole."},
        "beats": (
            ("$H looked after $number lambs on the hill.", "All summer $H watched the lambs "
             "near the $place."),
            ("In the evening $s counted them, as always. One was missing.", "When the sun went "
             "down, $s counted the lambs twice. The smallest one was not there."),
            ("\"It is only one,\" said $F. \"You have enough of them.\"", "\"Let it be,\" said "
             "$fintro. \"It is getting dark.\""),
            ("But $H shook $p head. \"It is alone and afraid,\" $s said.", "\"It needs me,\" "
             "said $H and took a lantern."),
            ("$S went over the meadow and called.", "Through wind and rain $s walked along the "
             "river and listened."),
            ("?Nobody answered but the owl.", "?Twice $s fell, and twice $s got up again."),
            ("Then $s heard a very weak sound. It came from a deep hole.", "Near a big stone $s "
             "heard something. The lamb had fallen into a deep hole."),
            ("$H lay down, but $p arms were too short.", "The walls were steep, and $H could not "
             "reach the lamb."),
            ("\"Hold my feet,\" said a voice behind $o. It was $F, who had followed the light.",
             "Just then $F came with a rope. \"I could not sleep,\" $t said."),
            ("Together they pulled the lamb out.", "With the help of $F, the lamb was soon safe "
             "in $p arms."),
            ("$H carried it home on $p shoulders.", "The lamb drank warm milk and fell asleep at "
             "once."),
        )},
}
