// Names for runs that were given none: an adjective and an animal, as people know them from Prefect.

import { randomInt } from 'node:crypto'

const ADJECTIVES =
  'able amber ancient bold brave bright brisk calm careful clever copper crimson curious daring eager early fearless fine gentle glad golden grand honest humble jolly keen kind light lively loyal lucky merry mighty modest neat nimble noble olive patient polite proud quick quiet rapid ready red robust royal rustic sage sharp silent silver sincere smart snug solid spry steady sturdy sunny swift tidy trusty upbeat vivid warm wise witty young zealous'.split(
    ' ',
  )
const ANIMALS =
  'ant badger bat bear beaver bee bison boar buffalo camel carp cat cheetah civet cobra condor coyote crab crane cricket crow deer dingo dolphin donkey dove duck eagle eel egret elk ermine falcon ferret finch fox frog gazelle gecko goat goose hare hawk heron hornet horse ibex ibis jackal jaguar jay kestrel koala lark lemur leopard lion lizard llama lynx magpie marmot marten mole moose moth mouse newt ocelot okapi orca oriole osprey otter owl ox panda panther parrot pelican penguin pigeon pony puffin puma quail rabbit raven robin salmon seal shark sheep shrew skunk sloth snail sparrow spider squid stork swan tapir tiger toad trout turtle viper vole walrus wasp weasel whale wolf wombat wren yak zebra'.split(
    ' ',
  )

export function makeRunName(): string {
  return `${ADJECTIVES[randomInt(ADJECTIVES.length)]}-${ANIMALS[randomInt(ANIMALS.length)]}`
}
